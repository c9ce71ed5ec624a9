/**
 * The buffers that local reads are answered from, shared by all connections of a server: a disk is read
 * straight into one, behind the reply's header, and it comes back when the kernel has taken its bytes. A
 * connection that keeps up with its replies uses the same one over and over, which stays in the CPU's cache.
 */

/** The largest read that clients make without asking for more, 1 MiB, and headers. */
export const REPLY_BUFFER_BYTES = (1 << 20) + 4096;
/** Free buffers kept for reuse. More are allocated where more are needed, and not kept afterwards. */
const FREE_MAX = 8;

export class ReplyBuffers {
  readonly #free: Buffer[] = [];

  /** A buffer of REPLY_BUFFER_BYTES with unspecified content. */
  take(): Buffer {
    return this.#free.pop() ?? Buffer.alloc(REPLY_BUFFER_BYTES);
  }

  release(buffer: Buffer): void {
    if (this.#free.length < FREE_MAX) this.#free.push(buffer);
  }
}
