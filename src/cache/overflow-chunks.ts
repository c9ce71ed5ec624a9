/**
 * Fetched chunks that found no space on the disk. Memory keeps them until newer ones evict them, or their blob is closed,
 * so a full disk makes reads expensive, but does not fail them.
 */
import { type BlobKey, keyText } from './blob-key.js';

/** 16 MiB: the largest compressed request of a transport, and a second one. */
const OVERFLOW_CHUNKS_MAX = 256;

export interface OverflowChunk {
  readonly chunk: number;
  readonly bytes: Uint8Array;
}

/** Chunks that another thread adds to its own. */
export interface OverflowCopies {
  /** The generation of the ChunkSet when the chunks were copied. Once it has changed, some of them may be invalid. */
  readonly generation: number;
  readonly chunks: readonly OverflowChunk[];
}

export class OverflowChunks {
  /** Oldest first. */
  readonly #chunks = new Map<string, Uint8Array>();

  get isEmpty(): boolean {
    return this.#chunks.size === 0;
  }

  /** @param bytes - Copied. */
  add(blob: BlobKey, chunk: number, bytes: Uint8Array): void {
    this.delete(blob, chunk);
    // Not bytes.slice(): a Buffer's is a view, and each chunk would keep the whole answer it came in.
    this.#chunks.set(key(blob, chunk), new Uint8Array(bytes));
    if (this.#chunks.size <= OVERFLOW_CHUNKS_MAX) return;
    const { value } = this.#chunks.keys().next();
    if (value !== undefined) this.#chunks.delete(value);
  }

  find(blob: BlobKey, chunk: number): Uint8Array | undefined {
    return this.#chunks.size === 0 ? undefined : this.#chunks.get(key(blob, chunk));
  }

  delete(blob: BlobKey, chunk: number): void {
    this.#chunks.delete(key(blob, chunk));
  }

  deleteAll(blob: BlobKey): void {
    const prefix = prefixOf(blob);
    for (const each of this.#chunks.keys()) if (each.startsWith(prefix)) this.#chunks.delete(each);
  }
}

function key(blob: BlobKey, chunk: number): string {
  return `${prefixOf(blob)}${chunk}`;
}

function prefixOf(blob: BlobKey): string {
  return `${keyText(blob)}/`;
}
