/**
 * Blocks of a mounted disk that failed their check for a whole deadline, refetched again and again. They are likely to be
 * damaged where they come from: later reads of them wait less, so that a program that reads one twice does not hang twice.
 */
import type { ObdError } from '../errors.js';

/** Limit for one disk; beyond it the oldest are evicted, and a read waits for them in full once more. */
const BLOCKS_MAX = 256;

/** By disk. */
const BLOCKS = new WeakMap<object, Set<string>>();

export function isLastingCorrupt(disk: object, block: string): boolean {
  return BLOCKS.get(disk)?.has(block) === true;
}

/** It has failed for a whole deadline. */
export function addLastingCorrupt(disk: object, block: string): void {
  let blocks = BLOCKS.get(disk);
  if (blocks === undefined) {
    blocks = new Set();
    BLOCKS.set(disk, blocks);
  }
  blocks.add(block);
  const [oldest] = blocks;
  if (blocks.size > BLOCKS_MAX && oldest !== undefined) blocks.delete(oldest);
}

/** It is well. */
export function dropLastingCorrupt(disk: object, block: string): void {
  BLOCKS.get(disk)?.delete(block);
}

/** @param offset - Of the read, for an error that names no place. */
export function blockOf({ details }: ObdError, offset: number): string {
  return `${details.path ?? ''} ${details.offset ?? offset}`;
}
