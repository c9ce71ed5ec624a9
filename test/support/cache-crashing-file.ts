/**
 * A file on a disk that can lose power: synced bytes stay. Any part of any other write, in any order, may or
 * may not have reached the disk.
 */
import type { DurableFile } from '../../src/cache/durable-file.js';

/** Far less than a disk's sector, so that even a small record is torn. */
const TORN_BYTES = 32;

interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class CrashingFile implements DurableFile {
  readonly sizeBytes: number;
  /** The file is in memory. */
  readonly fd = -1;
  /** Called by each sync(): 'lost' is a failing disk, and the kernel drops the dirty pages. */
  onSync: () => 'good' | 'lost' = () => 'good';
  /** Content for reads. */
  #current: Buffer;
  #durable: Buffer;
  #pending: Write[] = [];
  readonly #random: () => number;

  /** @param random - Numbers in [0, 1), from a seed. */
  constructor(sizeBytes: number, random: () => number) {
    this.sizeBytes = sizeBytes;
    this.#current = Buffer.alloc(sizeBytes);
    this.#durable = Buffer.alloc(sizeBytes);
    this.#random = random;
  }

  readSync(target: Uint8Array, offset: number): number {
    return this.#current.copy(target, 0, offset, offset + target.length);
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    this.#current.set(source, offset);
    this.#pending.push({ offset, bytes: source.slice() });
  }

  async sync(): Promise<void> {
    const covered = this.#pending.slice();
    await new Promise(setImmediate);
    if (this.onSync() === 'lost') {
      this.powerLoss();
      throw Object.assign(new TypeError('EIO: the disk failed'), { code: 'EIO' });
    }
    for (const { offset, bytes } of covered) this.#durable.set(bytes, offset);
    this.#pending = this.#pending.filter((write) => !covered.includes(write));
  }

  async punch(offset: number, length: number): Promise<void> {
    await this.write(new Uint8Array(length), offset);
  }

  async allocate(): Promise<void> {}

  async close(): Promise<void> {}

  /** Afterwards the file has the bytes that reached the disk. */
  powerLoss(): void {
    for (const { offset, bytes } of this.#pending) {
      for (let at = 0; at < bytes.length; at += TORN_BYTES) {
        if (this.#random() < 0.5) continue;
        this.#durable.set(bytes.subarray(at, at + TORN_BYTES), offset + at);
      }
    }
    this.#pending = [];
    this.#current = Buffer.from(this.#durable);
  }
}

/** Numbers in [0, 1) that a seed determines. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
