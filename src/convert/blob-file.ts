/**
 * A layer blob being written to the work directory, and its digest.
 *
 * The writers finally go back and complete their headers, so the digest takes a second pass over the finished file,
 * which the page cache still holds.
 */
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, openSync, writeSync } from 'node:fs';
import type { RewritableSink } from '../zfile/zfile-writer.js';
import { guarded } from './work-directory.js';

export class BlobFile implements RewritableSink {
  readonly path: string;
  #fd: number | undefined;
  #sizeBytes = 0;

  /** @throws {ObdError} `Io`, `NoSpace`. The file must not exist. */
  constructor(path: string) {
    this.path = path;
    this.#fd = guarded(path, () => openSync(path, 'wx', 0o600));
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

  /** Idempotent. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** `sha256:...` of the whole file. */
  async digest(): Promise<string> {
    const hash = createHash('sha256');
    for await (const piece of createReadStream(this.path, { highWaterMark: 1 << 20 })) {
      hash.update(piece as Buffer);
    }
    return `sha256:${hash.digest('hex')}`;
  }
}
