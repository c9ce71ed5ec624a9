/**
 * A TLS registry at 127.0.0.77:443 that tries to redirect uploads, downloads and logins to a trap that speaks plain HTTP.
 * The trap records its requests.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer as createPlainServer, type IncomingMessage, type Server } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

const ADDRESS = '127.0.0.77';
/** The only local port that clients reach over TLS without configuration. */
const PORT = 443;

export type Lure = 'upload' | 'download' | 'token';

export class AstrayRegistry {
  readonly host = `${ADDRESS}:${PORT}`;
  /** Path of a certificate that clients must trust: SSL_CERT_FILE. */
  readonly certificate: string;
  /** `METHOD PATH AUTHORIZATION` of every request to the trap. */
  readonly trapped: string[] = [];
  /** The same of every request to this registry. */
  readonly seen: string[] = [];
  lure: Lure = 'upload';
  readonly #folder: string;
  readonly #server: Server;
  readonly #trap: Server;

  private constructor(folder: string) {
    this.#folder = folder;
    this.certificate = join(folder, 'cert.pem');
    const key = join(folder, 'key.pem');
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
        ...['-keyout', key, '-out', this.certificate, '-days', '1', '-subj', '/CN=astray'],
        ...['-addext', `subjectAltName=IP:${ADDRESS}`],
      ],
      { stdio: 'ignore' },
    );
    this.#trap = createPlainServer((request, response) => {
      this.trapped.push(lineOf(request));
      request.resume();
      response.writeHead(201).end();
    });
    const tls = { key: readFileSync(key), cert: readFileSync(this.certificate) };
    this.#server = createServer(tls, (request, response) => {
      this.seen.push(lineOf(request));
      request.resume();
      const [status, headers] = this.#answer(request.method ?? '');
      response.writeHead(status, headers).end();
    });
  }

  static async start(): Promise<AstrayRegistry> {
    const registry = new AstrayRegistry(mkdtempSync('/var/tmp/obda.'));
    await new Promise<void>((resolve) => registry.#trap.listen(0, '127.0.0.1', resolve));
    await new Promise<void>((resolve) => registry.#server.listen(PORT, ADDRESS, resolve));
    return registry;
  }

  get trap(): string {
    return `127.0.0.1:${(this.#trap.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const server of [this.#server, this.#trap]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
    rmSync(this.#folder, { recursive: true });
  }

  #answer(method: string): [status: number, headers: Record<string, string>] {
    const location = `http://${this.trap}/astray`;
    if (this.lure === 'token') {
      const challenge = `Bearer realm="${location}",service="x"`;
      return [401, { 'www-authenticate': challenge }];
    }
    if (this.lure === 'download') return [307, { location }];
    return method === 'POST' ? [202, { location }] : [404, {}];
  }
}

function lineOf({ method, url, headers }: IncomingMessage): string {
  return `${method} ${url} ${headers.authorization ?? ''}`;
}
