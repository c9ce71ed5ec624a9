/**
 * A layer blob being written to the work directory, and its digest.
 *
 * The writers finally go back and complete their headers, so the digest takes a second pass over the finished file,
 * which the page cache still holds.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, openSync, readSync, writeSync } from 'node:fs';
import type { BlobSink } from './layer-blob-writer.js';
import { guarded } from './work-directory.js';

const PIECE_BYTES = 1 << 20;

export class HashingFile implements BlobSink {
  readonly path: string;
  #fd: number | undefined;
  #sizeBytes = 0;

  /** @throws {ObdError} `Io`, `NoSpace`. The file must not exist. */
  constructor(path: string) {
    this.path = path;
    this.#fd = guarded(path, () => openSync(path, 'wx+', 0o600));
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  write(bytes: Uint8Array): void {
    this.writeAt(bytes, this.#sizeBytes);
    this.#sizeBytes += bytes.length;
  }

  writeAt(bytes: Uint8Array, offset: number): void {
    guarded(this.path, () => {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#fd as number, bytes, done, bytes.length - done, offset + done);
      }
    });
  }

  /** The SHA-256 of written bytes. */
  hashOf(offset: number, bytes: number): Buffer {
    const hash = createHash('sha256');
    const piece = Buffer.alloc(Math.min(bytes, PIECE_BYTES));
    guarded(this.path, () => {
      for (let done = 0; done < bytes; ) {
        const length = Math.min(piece.length, bytes - done);
        const read = readSync(this.#fd as number, piece, 0, length, offset + done);
        assert(read > 0, 'only what was written is hashed');
        hash.update(piece.subarray(0, read));
        done += read;
      }
    });
    return hash.digest();
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** `sha256:...` of the whole file. */
  async digest(): Promise<string> {
    const hash = createHash('sha256');
    for await (const piece of createReadStream(this.path, { highWaterMark: PIECE_BYTES })) {
      hash.update(piece as Buffer);
    }
    return `sha256:${hash.digest('hex')}`;
  }
}
