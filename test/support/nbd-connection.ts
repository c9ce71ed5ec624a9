/** A connection past its handshake whose other end the test holds: it cuts what arrives, and may refuse what is sent. */
import { Duplex } from 'node:stream';
import { ReplyBuffers } from '../../src/blockdev/nbd/reply-buffers.js';
import { Transmission } from '../../src/blockdev/nbd/transmission.js';
import type { VirtualDisk } from '../../src/blockdev/virtual-disk.js';

const buffers = new ReplyBuffers();

/** One connection, seen from the client. */
export class Connection {
  readonly #sent: Buffer[] = [];
  readonly failures: number[] = [];
  writes = 0;
  /** While set, nothing that is written is taken. */
  #closedTap: (() => void)[] | undefined;
  readonly stream: Duplex;
  readonly transmission: Transmission;

  constructor(disk: VirtualDisk, { structured = false, allocation = false } = {}) {
    this.stream = new Duplex({
      read() {},
      write: (chunk: Buffer, _encoding, done) => {
        this.writes++;
        // Copied as the kernel would; the buffer is used again.
        this.#sent.push(Buffer.from(chunk));
        if (this.#closedTap === undefined) done();
        else this.#closedTap.push(done);
      },
    });
    const report = (_error: unknown, offset: number) => void this.failures.push(offset);
    const options = { disk, structured, allocation, buffers, report };
    this.transmission = new Transmission(this.stream, options, Buffer.alloc(0));
  }

  send(...pieces: Uint8Array[]): void {
    for (const piece of pieces) this.stream.push(piece);
  }

  holdReplies(): void {
    this.#closedTap = [];
  }

  takeReplies(): void {
    const held = this.#closedTap ?? [];
    this.#closedTap = undefined;
    for (const done of held) done();
  }

  get received(): Buffer {
    return Buffer.concat(this.#sent);
  }
}
