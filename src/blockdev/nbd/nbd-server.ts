/**
 * Read-only disks as NBD exports on one unix socket, which only its owner can open. Whoever has the name of
 * an export can read it, over as many connections as it likes, and none of them can hold up or end another.
 *
 * A client that has not picked an export within HANDSHAKE_MS is hung up on, and so is one beyond
 * CONNECTIONS_MAX. What one connection can make the server hold is in handshake.ts and transmission.ts.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { ErrorCodes, ObdError } from '../../errors.js';
import { placeSocket } from '../../io/socket-file.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { Handshake } from './handshake.js';
import { ReplyBuffers } from './reply-buffers.js';
import { Transmission } from './transmission.js';

/** A hundred devices of the default of nbdfuse, four connections each, and room for as many again. */
const CONNECTIONS_MAX = 1024;
const HANDSHAKE_MS = 10_000;
/** Of answers to options that a client does not take: more than any list of exports has. */
const HANDSHAKE_QUEUED_BYTES_MAX = 1 << 20;
/** The protocol's limit of a name. */
const NAME_BYTES_MAX = 4096;

/** One read that was answered with EIO. */
export interface ReadFailure {
  readonly exportName: string;
  readonly offset: number;
  readonly length: number;
  readonly error: unknown;
}

export interface NbdExport {
  /** Reads answered with an error. */
  readonly readErrors: number;
  /** Ends its connections; resolves when nothing reads the disk any more. Idempotent. */
  remove(): Promise<void>;
}

/** An export and who is connected to it. */
class ServedDisk implements NbdExport {
  readonly name: string;
  readonly disk: VirtualDisk;
  readonly transmissions = new Set<Transmission>();
  readErrors = 0;
  readonly #forget: () => void;

  constructor(name: string, disk: VirtualDisk, forget: () => void) {
    this.name = name;
    this.disk = disk;
    this.#forget = forget;
  }

  async remove(): Promise<void> {
    this.#forget();
    await Promise.all([...this.transmissions].map((transmission) => transmission.end()));
  }
}

export class NbdServer {
  readonly #exports = new Map<string, ServedDisk>();
  readonly #sockets = new Set<Socket>();
  readonly #buffers = new ReplyBuffers();
  readonly #onReadError: ((failure: ReadFailure) => void) | undefined;
  readonly #server: Server;
  #withdraw: () => Promise<void> = async () => {};

  private constructor(onReadError: ((failure: ReadFailure) => void) | undefined) {
    this.#onReadError = onReadError;
    this.#server = createServer((socket) => this.#greet(socket));
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /**
   * @param onReadError - Called once for every read that is answered with EIO; the place to log it.
   * @throws {ObdError} `Busy` if another server answers at that path, and as placeSocket() does.
   */
  static async listen(
    socketPath: string,
    onReadError?: (failure: ReadFailure) => void,
  ): Promise<NbdServer> {
    const nbd = new NbdServer(onReadError);
    nbd.#withdraw = await placeSocket(socketPath, (path) => listenAt(nbd.#server, path));
    // Out of descriptors, and the like: the clients that wait are accepted when there are some again.
    nbd.#server.on('error', () => {});
    return nbd;
  }

  /**
   * @param disk - Stays the caller's, to close after remove().
   * @throws {ObdError} `AlreadyExists` for a name in use, `InvalidArgument` for one no client can say.
   */
  addExport(name: string, disk: VirtualDisk): NbdExport {
    const bytes = Buffer.byteLength(name);
    if (bytes === 0 || bytes > NAME_BYTES_MAX) {
      throw new ObdError(
        ErrorCodes.InvalidArgument,
        `Cannot export ${disk.label}: a name of ${bytes} bytes, it takes 1 to ${NAME_BYTES_MAX}`,
      );
    }
    if (this.#exports.has(name)) {
      throw new ObdError(
        ErrorCodes.AlreadyExists,
        `Cannot export ${disk.label} as "${name}": there is an export of this name`,
      );
    }
    const served = new ServedDisk(name, disk, () => {
      if (this.#exports.get(name) === served) this.#exports.delete(name);
    });
    this.#exports.set(name, served);
    return served;
  }

  /** Whether `disk`, and no other, is exported as `name`. */
  serves(name: string, disk: VirtualDisk): boolean {
    return this.#exports.get(name)?.disk === disk;
  }

  /** Takes the socket away, ends every connection and removes every export. Idempotent. */
  async close(): Promise<void> {
    await this.#withdraw();
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([...this.#exports.values()].map((served) => served.remove()));
  }

  #greet(socket: Socket): void {
    this.#sockets.add(socket);
    const patience = setTimeout(() => socket.destroy(), HANDSHAKE_MS);
    socket.once('close', () => {
      clearTimeout(patience);
      this.#sockets.delete(socket);
    });
    // A client that is gone; 'close' follows.
    socket.on('error', () => {});
    const handshake = new Handshake<ServedDisk>(this.#exports, (bytes) => {
      if (socket.writableLength > HANDSHAKE_QUEUED_BYTES_MAX) socket.destroy();
      else socket.write(bytes);
    });
    const listener = (bytes: Buffer): void => {
      const progress = handshake.push(bytes);
      if (progress === 'more') return;
      socket.off('data', listener);
      clearTimeout(patience);
      if (progress === 'end') {
        socket.end();
        socket.destroySoon();
        return;
      }
      const { agreement, rest } = progress;
      this.#serve(socket, agreement.chosen, agreement, rest);
    };
    socket.on('data', listener);
  }

  #serve(
    socket: Socket,
    served: ServedDisk,
    agreed: { readonly structured: boolean; readonly allocation: boolean },
    rest: Buffer,
  ): void {
    const options = {
      disk: served.disk,
      structured: agreed.structured,
      allocation: agreed.allocation,
      buffers: this.#buffers,
      onReadError: (error: unknown, offset: number, length: number) => {
        served.readErrors++;
        this.#onReadError?.({ exportName: served.name, offset, length, error });
      },
    };
    const transmission = new Transmission(socket, options, rest);
    served.transmissions.add(transmission);
    socket.once('close', () => {
      void transmission.end().then(() => served.transmissions.delete(transmission));
    });
  }
}

function listenAt(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
