/**
 * TLS in front of a server on loopback, with a self-signed certificate for 127.0.0.1, 0.0.0.0 and localhost. It forwards
 * bytes unchanged.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer, type Server } from 'node:tls';

const NAMES = 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:0.0.0.0';

export class TlsFront {
  readonly certificatePath: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(target: string, directory: string) {
    const key = join(directory, 'front.key');
    this.certificatePath = join(directory, 'front.pem');
    const made = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    const about = ['-subj', '/CN=obd-ts test', '-addext', NAMES, '-days', '2'];
    const files = ['-keyout', key, '-out', this.certificatePath];
    execFileSync('openssl', ['req', ...made, ...about, ...files], { stdio: 'ignore' });
    const [host, port] = target.split(':');
    const options = { key: readFileSync(key), cert: readFileSync(this.certificatePath) };
    this.#server = createServer(options, (socket) => {
      const onward = connect(Number(port), host);
      for (const each of [socket, onward]) {
        this.#sockets.add(each);
        each.on('error', () => {});
        each.on('close', () => {
          socket.destroy();
          onward.destroy();
        });
      }
      socket.pipe(onward).pipe(socket);
    });
  }

  /** @param directory - For key and certificate. */
  static async start(target: string, directory: string): Promise<TlsFront> {
    const front = new TlsFront(target, directory);
    front.#server.listen(0, '127.0.0.1');
    await once(front.#server, 'listening');
    return front;
  }

  /** host:port, speaking TLS. */
  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
