/**
 * An HTTP proxy in front of a registry that stalls blobs: it passes the first bytes of a download, and none of an upload,
 * because docker-registry 2.8 does not delete a partly received upload.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Transform } from 'node:stream';

const PASSED_BYTES = 256 << 10;
const BLOB = /\/blobs\/(?:sha256:|uploads\/.)/;

export class StallingProxy {
  /** Direction to stall; changes affect the next request. */
  stalls: 'uploads' | 'downloads' | 'nothing' = 'nothing';
  readonly #registry: string;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((incoming, answer) => this.#pass(incoming, answer));
  #onStalled: () => void = () => {};

  private constructor(registry: string) {
    this.#registry = registry;
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  /** @param registry - host:port, speaking plain HTTP. */
  static async start(registry: string): Promise<StallingProxy> {
    const proxy = new StallingProxy(registry);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resolves when the next blob stalls. */
  stalled(): Promise<void> {
    return new Promise((resolve) => {
      this.#onStalled = resolve;
    });
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #pass(incoming: IncomingMessage, answer: ServerResponse): void {
    const { method = '', url = '', headers } = incoming;
    const isBlob = BLOB.test(url);
    const target = { method, path: url, headers, ...hostOf(this.#registry) };
    const sent = request(target, (response) => {
      answer.writeHead(response.statusCode ?? 500, response.headers);
      if (isBlob && method === 'GET' && this.stalls === 'downloads') {
        response.pipe(this.#stall(PASSED_BYTES)).pipe(answer);
      } else response.pipe(answer);
    });
    sent.on('error', () => answer.destroy());
    incoming.on('error', () => sent.destroy());
    incoming.on('close', () => {
      if (!incoming.complete) sent.destroy();
    });
    const holdsUp = isBlob && method === 'PUT' && this.stalls === 'uploads';
    if (holdsUp) incoming.pipe(this.#stall(0)).pipe(sent);
    else incoming.pipe(sent);
  }

  #stall(passedMax: number): Transform {
    let passed = 0;
    return new Transform({
      transform: (piece: Buffer, _encoding, done) => {
        passed += piece.length;
        if (passed <= passedMax) return done(undefined, piece);
        // Never done.
        this.#onStalled();
      },
    });
  }
}

function hostOf(address: string): { host: string; port: number } {
  const { hostname, port } = new URL(`http://${address}`);
  return { host: hostname, port: Number(port) };
}
