/**
 * Disks as NBD exports on one unix socket, which only its owner can open. Whoever has the name of
 * an export can read it, over as many connections as it likes, and none of them can hold up or end another.
 *
 * The disk of an export is on this thread, or on another one. Connections are accepted and shake hands here;
 * then a disk of another thread is given a descriptor of the connection, and nothing of it goes through here any more.
 *
 * A client that has not picked an export within HANDSHAKE_MS is hung up on, and so is one beyond
 * CONNECTIONS_MAX, on all threads together. What one connection can make the server hold is in handshake.ts and
 * transmission.ts.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { ErrorCodes, ObdError } from '../../errors.js';
import { duplicateOf } from '../../io/posix.js';
import { placeSocket } from '../../io/socket-file.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { DiskConnections, type Terms } from './disk-connections.js';
import { type Exported, Handshake } from './handshake.js';
import { ReplyBuffers } from './reply-buffers.js';
import { transmissionFlags } from './transmission-flags.js';

/** A hundred devices, four connections each, and room for as many again. */
const CONNECTIONS_MAX = 1024;
const HANDSHAKE_MS = 10_000;
/** Of answers to options that a client does not take: more than any list of exports has. */
const HANDSHAKE_QUEUED_BYTES_MAX = 1 << 20;
/** The protocol's limit of a name. */
const NAME_BYTES_MAX = 4096;
const EMPTY = Buffer.alloc(0);

/** One read that was answered with EIO. */
export interface ReadFailure {
  readonly exportName: string;
  readonly offset: number;
  readonly length: number;
  readonly error: unknown;
}

export interface NbdExport {
  /** Reads answered with an error, on this thread. */
  readonly readErrors: number;
  /** Ends its connections; resolves when nothing reads the disk any more. Idempotent. */
  remove(): Promise<void>;
}

/** A connection on its way to the thread that has the disk. */
export interface HandedConnection extends Terms {
  /** Of the receiver, to close. */
  readonly fd: number;
  /** What has been read of it already. */
  readonly rest: Buffer;
  /** To be called once, when the connection has ended. */
  readonly ended: () => void;
}

/** A disk of another thread. */
export interface RemoteDisk extends Exported {
  readonly label: string;
  /** Serves a connection. */
  take(connection: HandedConnection): void;
  /** Ends all of them. Resolves when nothing reads the disk any more. Called once, after the last take(). */
  end(): Promise<void>;
}

/** An export, wherever its disk is. */
class ServedDisk implements NbdExport, Exported {
  readonly sizeBytes: number;
  readonly flags: number;
  readErrors = 0;
  readonly serve: (socket: Socket, terms: Terms, rest: Buffer) => void;
  readonly #remove: () => Promise<void>;
  #removed: Promise<void> | undefined;

  constructor(
    { sizeBytes, flags }: Exported,
    serve: (socket: Socket, terms: Terms, rest: Buffer) => void,
    remove: () => Promise<void>,
  ) {
    this.sizeBytes = sizeBytes;
    this.flags = flags;
    this.serve = serve;
    this.#remove = remove;
  }

  async remove(): Promise<void> {
    this.#removed ??= this.#remove();
    await this.#removed;
  }
}

export class NbdServer {
  readonly #exports = new Map<string, ServedDisk>();
  readonly #sockets = new Set<Socket>();
  readonly #buffers = new ReplyBuffers();
  readonly #onReadError: ((failure: ReadFailure) => void) | undefined;
  readonly #server: Server;
  /** Connections that are on other threads. */
  #handedOver = 0;
  #withdraw: () => Promise<void> = async () => {};

  private constructor(onReadError: ((failure: ReadFailure) => void) | undefined) {
    this.#onReadError = onReadError;
    this.#server = createServer((socket) => this.#greet(socket));
  }

  /**
   * @param onReadError - Called once for every read of a disk of this thread that is answered with EIO.
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
    const connections = new DiskConnections(disk, this.#buffers, (error, offset, length) => {
      served.readErrors++;
      this.#onReadError?.({ exportName: name, offset, length, error });
    });
    const { label, sizeBytes } = disk;
    const served = this.#add(
      name,
      { label, sizeBytes, flags: transmissionFlags(disk) },
      (socket, terms, rest) => connections.serve(socket, terms, rest),
      () => connections.end(),
    );
    return served;
  }

  /** As addExport(). */
  addRemoteExport(name: string, disk: RemoteDisk): NbdExport {
    const served = this.#add(
      name,
      disk,
      (socket, terms, rest) => {
        const isThere = () => this.#exports.get(name) === served;
        this.#handOver(socket, terms, rest, disk, isThere);
      },
      () => disk.end(),
    );
    return served;
  }

  #add(
    name: string,
    disk: Exported & { readonly label: string },
    serve: (socket: Socket, terms: Terms, rest: Buffer) => void,
    end: () => Promise<void>,
  ): ServedDisk {
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
    const served = new ServedDisk(disk, serve, async () => {
      this.#exports.delete(name);
      await end();
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
      agreement.chosen.serve(socket, agreement, rest);
    };
    socket.on('data', listener);
  }

  /**
   * In the tick in which the handshake's last bytes were read: the descriptor is duplicated and the socket destroyed
   * before Node can read more of it.
   */
  #handOver(
    socket: Socket,
    terms: Terms,
    rest: Buffer,
    disk: RemoteDisk,
    isThere: () => boolean,
  ): void {
    if (!isThere()) socket.destroy();
    if (socket.destroyed) return;
    if (socket.writableLength > 0) {
      // A client that asks on without reading the answers. What it sends until it has them is kept here.
      socket.setTimeout(HANDSHAKE_MS, () => socket.destroy());
      socket.pause();
      socket.write(EMPTY, () => {
        const more = (socket.read() ?? EMPTY) as Buffer;
        this.#handOver(socket, terms, Buffer.concat([rest, more]), disk, isThere);
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
    disk.take({ ...terms, fd, rest, ended });
  }
}

/** Undefined where there is none to be had: then the client is hung up on, and may come again. */
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
