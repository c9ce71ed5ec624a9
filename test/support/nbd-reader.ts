/** A client of the daemon's NBD socket: reads that do not go through a page cache, so that each can be timed. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { CLIENT_FLAGS, infoData, option, parseOptionReplies, request } from './nbd-bytes.js';

const GREETING_BYTES = 18;
const GO = 7;
const ACK = 1;
const INFO_EXPORT = 3;
const OPTION_HEADER_BYTES = 20;
const REPLY_BYTES = 16;
const READ = 0;
const DISCONNECT = 2;

export class NbdReader {
  sizeBytes = 0;
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #arrived: () => void = () => {};
  #cookies = 0;
  /** One request at a time. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(socket: Socket) {
    this.#socket = socket;
    const wake = () => this.#arrived();
    socket.on('data', (piece) => {
      this.#received = Buffer.concat([this.#received, piece]);
      wake();
    });
    socket.on('close', wake);
    socket.on('error', () => {});
  }

  /** @param name - Of the disk: the id of its device. */
  static async open(socketPath: string, name: string): Promise<NbdReader> {
    const socket = connect(socketPath);
    await once(socket, 'connect');
    const reader = new NbdReader(socket);
    await reader.#take(GREETING_BYTES);
    socket.write(Buffer.concat([CLIENT_FLAGS, option(GO, infoData(name))]));
    for (;;) {
      const head = await reader.#take(OPTION_HEADER_BYTES);
      const data = await reader.#take(head.readUInt32BE(16));
      const [reply] = parseOptionReplies(Buffer.concat([head, data]));
      if (reply?.type === ACK) return reader;
      assert.equal(reply?.type, INFO_EXPORT, `no disk "${name}"`);
      if (data.readUInt16BE(0) === 0) reader.sizeBytes = Number(data.readBigUInt64BE(2));
    }
  }

  /** @throws {Error} if the read is answered with an error. */
  async read(offset: number, length: number): Promise<Buffer> {
    const read = this.#last.then(async () => {
      const cookie = ++this.#cookies;
      this.#socket.write(request({ command: READ, cookie, offset, length }));
      const head = await this.#take(REPLY_BYTES);
      assert.equal(head.readUInt32BE(4), 0, `[${offset}, +${length}) was answered with an error`);
      return await this.#take(length);
    });
    this.#last = read.catch(() => {});
    return await read;
  }

  async close(): Promise<void> {
    if (this.#socket.destroyed) return;
    const closed = once(this.#socket, 'close');
    this.#socket.end(request({ command: DISCONNECT, cookie: 0 }));
    await closed;
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#received.length < bytes) {
      assert.ok(!this.#socket.destroyed, 'the connection has ended');
      await new Promise<void>((resolve) => {
        this.#arrived = resolve;
      });
    }
    const taken = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return taken;
  }
}
