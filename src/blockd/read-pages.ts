/**
 * Reads the pages of a start into the kernel's page cache, by the program native/read-pages: a program in a container reads
 * one page after the other, and each takes a way from the kernel to the daemon and back.
 *
 * For a device that is mounted, and whose start reads what is known of it. Ends at the latest after READ_MS_MAX.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';
import type { HotPages } from '../hot-blob/hot-pages.js';
import { readMountTable } from '../io/mount-table.js';
import { findProgramFile } from '../io/program-files.js';
import { NO_BLOCK } from './hot-blocks.js';

const PROGRAM = findProgramFile(join('native', 'read-pages', 'build', 'Release', 'read-pages'));
/** As long as a start is likely to read what comes. */
const READ_MS_MAX = 10_000;
/** Pages that arrive are passed on together. */
const PAUSE_MS = 20;
const SAID_BYTES_MAX = 1024;

/**
 * @param path - Of the device.
 * @param blocks - Where the pages are on the disk, as hotBlocks() says.
 * @param signal - Ends it when the device goes.
 * @returns How many pages were named to the kernel. 0 for a device that is not mounted.
 * @throws {ObdError} `Host` if the program cannot be run, `Io` if it fails.
 */
export async function readPages(
  path: string,
  blocks: Uint32Array,
  hot: HotPages,
  signal: AbortSignal,
): Promise<number> {
  const mount = (await readMountTable()).findLast(({ source }) => source === path);
  if (mount === undefined) return 0;
  if (PROGRAM === undefined) {
    throw new ObdError(ErrorCodes.Host, 'Cannot run read-pages: build it with `npm run build`');
  }
  const limit = AbortSignal.any([signal, AbortSignal.timeout(READ_MS_MAX)]);
  const child = spawn(PROGRAM, [path, mount.target], { stdio: ['pipe', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(0, SAID_BYTES_MAX);
  });
  // A program that has ended early says why.
  child.stdin.on('error', () => {});
  const ended = once(child, 'close', { signal: limit });
  ended.catch(() => {});
  // A program that waits in the kernel is left behind: it ends with the reads of the device.
  limit.addEventListener('abort', () => child.kill('SIGKILL'));
  child.unref();
  let named = 0;
  try {
    for await (const arrived of arriving(blocks, hot, limit)) {
      named += arrived.length;
      const frame = Uint32Array.of(arrived.length, ...arrived);
      child.stdin.write(new Uint8Array(frame.buffer));
    }
    child.stdin.end();
    const [status] = await ended;
    if (status !== 0) throw new ObdError(ErrorCodes.Io, said.trim());
  } catch (error) {
    child.kill('SIGKILL');
    if (!limit.aborted) throw error;
  }
  return named;
}

/** The blocks of pages as they come, in order of first use. */
async function* arriving(blocks: Uint32Array, hot: HotPages, signal: AbortSignal) {
  const { progress } = hot;
  for (let next = 0; next < blocks.length && !signal.aborted; ) {
    const { arrived, hasEnded } = progress;
    if (arrived > next) {
      const first = next;
      const isHere = (block: number, i: number) => block !== NO_BLOCK && hot.has(first + i);
      yield blocks.subarray(first, arrived).filter(isHere);
      next = arrived;
    } else if (hasEnded) return;
    else await progress.next(arrived, READ_MS_MAX);
    await sleep(PAUSE_MS, undefined, { ref: false });
  }
}
