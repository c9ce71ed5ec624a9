/**
 * Whoever reads one disk over NBD, on the thread that has the disk, past the handshake: one Transmission each.
 * None of them can hold up or end another.
 */
import type { Socket } from 'node:net';
import type { VirtualDisk } from '../virtual-disk.js';
import type { ReplyBuffers } from './reply-buffers.js';
import { Transmission } from './transmission.js';

/** What a client has agreed on in its handshake. */
export interface Terms {
  /** READs must be answered in structured form. */
  readonly structured: boolean;
  /** BLOCK_STATUS may be asked for. */
  readonly allocation: boolean;
}

export class DiskConnections {
  readonly #disk: VirtualDisk;
  readonly #buffers: ReplyBuffers;
  readonly #onReadError: (error: unknown, offset: number, length: number) => void;
  readonly #transmissions = new Set<Transmission>();

  /**
   * @param buffers - All connections of a thread may share them.
   * @param onReadError - Called once for every read that is answered with an error.
   */
  constructor(
    disk: VirtualDisk,
    buffers: ReplyBuffers,
    onReadError: (error: unknown, offset: number, length: number) => void,
  ) {
    this.#disk = disk;
    this.#buffers = buffers;
    this.#onReadError = onReadError;
  }

  /** @param rest - What has been read of the socket already. */
  serve(socket: Socket, { structured, allocation }: Terms, rest: Buffer): void {
    const options = {
      disk: this.#disk,
      structured,
      allocation,
      buffers: this.#buffers,
      onReadError: this.#onReadError,
    };
    const transmission = new Transmission(socket, options, rest);
    this.#transmissions.add(transmission);
    socket.once('close', () => {
      void transmission.end().then(() => this.#transmissions.delete(transmission));
    });
  }

  /** Ends them. Resolves when nobody reads the disk any more. */
  async end(): Promise<void> {
    await Promise.all([...this.#transmissions].map((transmission) => transmission.end()));
  }
}
