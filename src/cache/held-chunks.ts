/**
 * Chunks that were fetched and could not be stored: kept in memory until newer ones push them out, or nobody
 * has their blob open. With it a full disk makes reads dear, but does not fail them.
 */
import type { BlobName } from './cache-directory.js';

/** 16 MiB: the largest request of a transport, compressed, and another one beside it. */
const HELD_CHUNKS_MAX = 256;

export interface HeldChunk {
  readonly chunk: number;
  readonly bytes: Uint8Array;
}

/** Chunks for another thread to hold, too. */
export interface HeldCopies {
  /** The ChunkSet's when they were copied. Once it has changed they may be dropped chunks. */
  readonly generation: number;
  readonly chunks: readonly HeldChunk[];
}

export class HeldChunks {
  /** Oldest first. */
  readonly #chunks = new Map<string, Uint8Array>();

  get isEmpty(): boolean {
    return this.#chunks.size === 0;
  }

  /** @param bytes - Copied. */
  hold(blob: BlobName, chunk: number, bytes: Uint8Array): void {
    this.drop(blob, chunk);
    // Not bytes.slice(): a Buffer's is a view, and each chunk would keep the whole answer it came in.
    this.#chunks.set(key(blob, chunk), new Uint8Array(bytes));
    if (this.#chunks.size <= HELD_CHUNKS_MAX) return;
    const { value } = this.#chunks.keys().next();
    if (value !== undefined) this.#chunks.delete(value);
  }

  find(blob: BlobName, chunk: number): Uint8Array | undefined {
    return this.#chunks.size === 0 ? undefined : this.#chunks.get(key(blob, chunk));
  }

  drop(blob: BlobName, chunk: number): void {
    this.#chunks.delete(key(blob, chunk));
  }

  dropAll(blob: BlobName): void {
    const prefix = prefixOf(blob);
    for (const each of this.#chunks.keys()) if (each.startsWith(prefix)) this.#chunks.delete(each);
  }
}

function key(blob: BlobName, chunk: number): string {
  return `${prefixOf(blob)}${chunk}`;
}

function prefixOf({ registry, digest }: BlobName): string {
  return `${registry}/${digest}/`;
}
