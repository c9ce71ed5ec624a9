/**
 * Disks as NBD exports on one unix socket, which only its owner can open. A client that knows the name of an export can
 * read it, over as many connections as it likes. No connection can hold up or end another.
 *
 * Connections are accepted and shake hands on this thread. Then a descriptor of the connection is handed to the thread
 * that has the disk, usually to a DiskConnections there, and none of its bytes pass this thread any more.
 *
 * The server closes connections that have not picked an export within HANDSHAKE_MS, and connections beyond
 * CONNECTIONS_MAX, on all threads together. handshake.ts and transmission.ts limit what one connection can make the
 * server hold.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { ErrorCodes, ObdError } from '../../errors.js';
import { duplicateOf } from '../../io/posix.js';
import { placeSocket } from '../../io/socket-file.js';
import { type Exported, Handshake } from './handshake.js';
import type { NegotiatedOptions } from './protocol.js';

/** A hundred devices, four connections each, and room for as many again. */
const CONNECTIONS_MAX = 1024;
const HANDSHAKE_MS = 10_000;
/** Limit of the answers to options that wait for a client to take them: more than any list of exports has. */
const HANDSHAKE_QUEUED_BYTES_MAX = 1 << 20;
/** The protocol's limit of a name. */
const NAME_BYTES_MAX = 4096;
const EMPTY = Buffer.alloc(0);

export interface NbdExport {
  /** Ends its connections; resolves when no client reads the disk any more. Idempotent. */
  remove(): Promise<void>;
}

/** A connection on its way to the thread that has the disk. */
export interface HandedConnection extends NegotiatedOptions {
  /** Owned by the receiver, which closes it. */
  readonly fd: number;
  /** The bytes that were read from it already. */
  readonly rest: Buffer;
  /** The receiver calls it once, when the connection has ended. */
  readonly ended: () => void;
}

/** A disk, on whichever thread. */
export interface ExportedDisk extends Exported {
  readonly label: string;
  /** Serves a connection. */
  serve(connection: HandedConnection): void;
  /** Ends all connections. Resolves when no client reads the disk any more. Called once, after the last serve(). */
  end(): Promise<void>;
}

class ServedDisk implements NbdExport, Exported {
  readonly sizeBytes: number;
  readonly flags: number;
  readonly disk: ExportedDisk;
  readonly #remove: () => Promise<void>;
  #removed: Promise<void> | undefined;

  constructor(disk: ExportedDisk, remove: () => Promise<void>) {
    this.sizeBytes = disk.sizeBytes;
    this.flags = disk.flags;
    this.disk = disk;
    this.#remove = remove;
  }

  get isRemoved(): boolean {
    return this.#removed !== undefined;
  }

  async remove(): Promise<void> {
    this.#removed ??= this.#remove();
    await this.#removed;
  }
}

export class NbdServer {
  readonly #exports = new Map<string, ServedDisk>();
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  /** Connections that were handed over. */
  #handedOver = 0;
  #withdraw: () => Promise<void> = async () => {};

  private constructor() {
    this.#server = createServer((socket) => this.#greet(socket));
  }

  /** @throws {ObdError} `Busy` if another server answers at that path, and as placeSocket() does. */
  static async listen(socketPath: string): Promise<NbdServer> {
    const nbd = new NbdServer();
    nbd.#withdraw = await placeSocket(socketPath, (path) => listenAt(nbd.#server, path));
    // Out of descriptors, and the like: the clients that wait are accepted when there are some again.
    nbd.#server.on('error', () => {});
    return nbd;
  }

  /** @throws {ObdError} `AlreadyExists` for a name in use, `InvalidArgument` for one no client can send. */
  addExport(name: string, disk: ExportedDisk): NbdExport {
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
    const served = new ServedDisk(disk, async () => {
      this.#exports.delete(name);
      await disk.end();
    });
    this.#exports.set(name, served);
    return served;
  }

  /** Takes the socket away, ends every connection and removes every export. Idempotent. */
  async close(): Promise<void> {
    await this.#withdraw();
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([...this.#exports.values()].map((served) => served.remove()));
  }

  #greet(socket: Socket): void {
    if (this.#sockets.size + this.#handedOver >= CONNECTIONS_MAX) {
      socket.destroy();
      return;
    }
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
      this.#handOver(socket, agreement, agreement.chosen, rest);
    };
    socket.on('data', listener);
  }

  /**
   * In the tick in which the handshake's last bytes were read: the descriptor is duplicated and the socket destroyed
   * before Node can read more of it.
   */
  #handOver(socket: Socket, options: NegotiatedOptions, served: ServedDisk, rest: Buffer): void {
    if (served.isRemoved) socket.destroy();
    if (socket.destroyed) return;
    if (socket.writableLength > 0) {
      // The client has not read its answers yet. Until it has them, this socket keeps what it sends.
      socket.setTimeout(HANDSHAKE_MS, () => socket.destroy());
      socket.pause();
      socket.write(EMPTY, () => {
        const more = (socket.read() ?? EMPTY) as Buffer;
        this.#handOver(socket, options, served, Buffer.concat([rest, more]));
      });
      return;
    }
    const fd = descriptorOf(socket);
    socket.destroy();
    this.#sockets.delete(socket);
    if (fd === undefined) return;
    this.#handedOver++;
    const ended = () => {
      this.#handedOver--;
    };
    const { structured, allocation } = options;
    served.disk.serve({ structured, allocation, fd, rest, ended });
  }
}

/** Undefined if the process has no descriptor left: then the server disconnects the client, which may connect again. */
function descriptorOf(socket: Socket): number | undefined {
  try {
    return duplicateOf(socket);
  } catch {
    return undefined;
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
