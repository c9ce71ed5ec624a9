/**
 * The clients that read one disk over NBD, past the handshake, on the thread that has the disk: one Transmission each.
 * No client can hold up or end another.
 */
import { Socket } from 'node:net';
import type { ReportFailure } from '../disk-requests.js';
import type { VirtualDisk } from '../virtual-disk.js';
import type { NegotiatedOptions } from './protocol.js';
import type { ReplyBuffers } from './reply-buffers.js';
import { Transmission } from './transmission.js';

export class DiskConnections {
  readonly #disk: VirtualDisk;
  readonly #buffers: ReplyBuffers;
  readonly #report: ReportFailure;
  readonly #transmissions = new Set<Transmission>();

  /**
   * @param buffers - All connections of a thread may share them.
   * @param report - Called once for every request that is answered with an error.
   */
  constructor(disk: VirtualDisk, buffers: ReplyBuffers, report: ReportFailure) {
    this.#disk = disk;
    this.#buffers = buffers;
    this.#report = report;
  }

  /**
   * Serves a connection that the accepting thread handed over. Resolves when it has ended.
   *
   * @param fd - Owned by this object from now on.
   * @param rest - The bytes that were read from it already.
   */
  async serve(
    fd: number,
    { structured, allocation }: NegotiatedOptions,
    rest: Uint8Array,
  ): Promise<void> {
    const socket = new Socket({ fd });
    // A client that is gone; 'close' follows.
    socket.on('error', () => {});
    const options = {
      disk: this.#disk,
      structured,
      allocation,
      buffers: this.#buffers,
      report: this.#report,
    };
    const transmission = new Transmission(socket, options, Buffer.from(rest));
    this.#transmissions.add(transmission);
    await new Promise<void>((resolve) => {
      socket.once('close', () => {
        resolve();
        void transmission.end().then(() => this.#transmissions.delete(transmission));
      });
    });
  }

  /** Ends all connections. Resolves when no client reads the disk any more. */
  async end(): Promise<void> {
    await Promise.all([...this.#transmissions].map((transmission) => transmission.end()));
  }
}
