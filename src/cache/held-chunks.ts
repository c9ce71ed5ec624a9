/**
 * Chunks that were fetched and could not be stored: kept in memory until newer ones push them out, or nobody
 * has their blob open. With it a full disk makes reads dear, but does not fail them.
 */

/** 16 MiB: the largest request of a transport, compressed, and another one beside it. */
const HELD_CHUNKS_MAX = 256;

export class HeldChunks {
  /** Oldest first. */
  readonly #chunks = new Map<string, Uint8Array>();

  get isEmpty(): boolean {
    return this.#chunks.size === 0;
  }

  /** @param bytes - Copied. */
  hold(digest: string, chunk: number, bytes: Uint8Array): void {
    this.drop(digest, chunk);
    // Not bytes.slice(): a Buffer's is a view, and each chunk would keep the whole answer it came in.
    this.#chunks.set(key(digest, chunk), new Uint8Array(bytes));
    if (this.#chunks.size <= HELD_CHUNKS_MAX) return;
    const { value } = this.#chunks.keys().next();
    if (value !== undefined) this.#chunks.delete(value);
  }

  find(digest: string, chunk: number): Uint8Array | undefined {
    return this.#chunks.size === 0 ? undefined : this.#chunks.get(key(digest, chunk));
  }

  drop(digest: string, chunk: number): void {
    this.#chunks.delete(key(digest, chunk));
  }

  dropAll(digest: string): void {
    for (const each of this.#chunks.keys()) {
      if (each.startsWith(`${digest}/`)) this.#chunks.delete(each);
    }
  }
}

function key(digest: string, chunk: number): string {
  return `${digest}/${chunk}`;
}
