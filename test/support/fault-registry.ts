/**
 * A registry of blobs that injects every kind of faulty answer: at random from a seed, or always for a while.
 *
 *     const registry = await FaultRegistry.start(seed);
 *     registry.kinds = ['404', 'html'];
 *     registry.share = 0.1;
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Faults that a container must not notice. */
export const PASSING_KINDS = [
  '400',
  '401',
  '401-challenge',
  '403',
  '404',
  '416',
  '418',
  '451',
  '429',
  '503',
  '599',
  '204',
  'html-200',
  'html-chunked',
  'html-same-size',
  'short-206',
  'no-content-range',
  'wrong-range',
  'wrong-size',
  'multipart',
  'two-ranges',
  'reset',
  'truncated',
  'not-http',
  'huge-headers',
  'redirect-loop',
  'redirect-to-nothing',
  'redirect-to-ftp',
  'redirect-to-dead-host',
  'part-as-200',
  'wider-range',
  'odd-spelling',
  'flipped-bit',
  'zeroes',
] as const;

export type FaultKind = (typeof PASSING_KINDS)[number] | 'whole-200' | 'drip';

const HTML = '<html><body>Service temporarily unavailable</body></html>';
const DRIP_BYTES = 100;

export class FaultRegistry {
  kinds: readonly FaultKind[] = [];
  /** Share of the requests that get a fault. */
  share = 0;
  requests = 0;
  faults = 0;
  readonly #blobs = new Map<string, Buffer>();
  readonly #server: Server;
  #random: number;

  private constructor(seed: number) {
    this.#random = seed >>> 0;
    this.#server = createServer((request, response) => this.#serve(request, response));
  }

  static async start(seed: number): Promise<FaultRegistry> {
    const registry = new FaultRegistry(seed);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** @returns Its digest. */
  add(bytes: Buffer): string {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    this.#blobs.set(digest, bytes);
    return digest;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Numerical Recipes' generator: [0, 1). */
  next(): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    return this.#random / 2 ** 32;
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    this.requests++;
    const { pathname } = new URL(request.url ?? '/', 'http://x');
    const blob = this.#blobs.get(pathname.split('/').at(-1) ?? '');
    if (blob === undefined) return void response.writeHead(404).end();
    const range = /^bytes=([0-9]+)-([0-9]+)$/.exec(request.headers.range ?? '');
    const first = Number(range?.[1] ?? 0);
    const end = Math.min(Number(range?.[2] ?? blob.length - 1) + 1, blob.length);
    const isFault = this.kinds.length > 0 && this.next() < this.share;
    const kind = isFault ? this.kinds[Math.floor(this.next() * this.kinds.length)] : undefined;
    if (kind !== undefined) this.faults++;
    if (kind === undefined) return void this.#part(response, blob, first, end);
    this.#fault(kind, request, response, blob, first, end);
  }

  #part(
    response: ServerResponse,
    blob: Buffer,
    first: number,
    end: number,
    { status = 206, unit = 'bytes', body = blob.subarray(first, end) } = {},
  ): void {
    response.writeHead(status, {
      'content-range': `${unit} ${first}-${end - 1}/${blob.length}`,
      'content-length': body.length,
    });
    response.end(body);
  }

  #fault(
    kind: FaultKind,
    request: IncomingMessage,
    response: ServerResponse,
    blob: Buffer,
    first: number,
    end: number,
  ): void {
    const good = blob.subarray(first, end);
    const redirect = (location: string) => void response.writeHead(307, { location }).end();
    const range = `bytes ${first}-${end - 1}/${blob.length}`;
    switch (kind) {
      case '401-challenge': {
        const realm = `Bearer realm="http://${this.host}/token/none",service="x"`;
        return void response.writeHead(401, { 'www-authenticate': realm }).end();
      }
      case '204':
        return void response.writeHead(204).end();
      case 'html-200':
        return void response.writeHead(200, { 'content-length': HTML.length }).end(HTML);
      case 'html-chunked':
        return void response.writeHead(200, { 'content-type': 'text/html' }).end(HTML);
      case 'html-same-size': {
        const page = Buffer.alloc(blob.length, HTML);
        return void response.writeHead(200, { 'content-length': page.length }).end(page);
      }
      case 'short-206':
        return void this.#part(response, blob, first, first + Math.ceil(good.length / 2));
      case 'no-content-range':
        return void response.writeHead(206).end(good);
      case 'wrong-range':
        return void this.#part(response, blob, first + 1, end + 1, { body: good });
      case 'wrong-size':
        return void response
          .writeHead(206, { 'content-range': `bytes ${first}-${end - 1}/${blob.length + 1}` })
          .end(good);
      case 'multipart': {
        const type = 'multipart/byteranges; boundary=b';
        const body = `--b\r\ncontent-range: ${range}\r\n\r\n${good.toString('latin1')}\r\n--b--\r\n`;
        return void response.writeHead(206, { 'content-type': type }).end(body, 'latin1');
      }
      case 'two-ranges':
        return void response.writeHead(206, { 'content-range': `${range}, ${range}` }).end(good);
      case 'reset':
        return void request.socket.destroy();
      case 'truncated':
        response.writeHead(206, { 'content-range': range, 'content-length': good.length });
        response.write(good.subarray(0, good.length >> 1), () => request.socket.destroy());
        return;
      case 'not-http':
        return void request.socket.end('SSH-2.0-OpenSSH_9.2\r\n');
      case 'huge-headers':
        return void response.writeHead(206, { 'x-long': 'x'.repeat(200_000) }).end();
      case 'redirect-loop':
        return void redirect(request.url ?? '');
      case 'redirect-to-nothing':
        return void redirect('http://[');
      case 'redirect-to-ftp':
        return void redirect('ftp://example.org/blob');
      case 'redirect-to-dead-host':
        return void redirect('http://127.0.0.1:1/blob?signature=SECRET');
      case 'part-as-200':
        return void this.#part(response, blob, first, end, { status: 200 });
      case 'wider-range':
        return void this.#part(response, blob, Math.max(0, first - 100), end);
      case 'odd-spelling':
        return void this.#part(response, blob, first, end, { unit: 'BYTES  ' });
      case 'flipped-bit':
      case 'zeroes': {
        const body = Buffer.from(good);
        if (kind === 'zeroes') body.fill(0);
        else body[body.length >> 1]! ^= 1;
        return void this.#part(response, blob, first, end, { body });
      }
      case 'whole-200':
        return void response.writeHead(200, { 'content-length': blob.length }).end(blob);
      case 'drip':
        return void drip(response, range, good);
      default:
        return void response.writeHead(Number(kind)).end(HTML);
    }
  }
}

/** One KB a second. */
function drip(response: ServerResponse, range: string, bytes: Buffer): void {
  response.writeHead(206, { 'content-range': range, 'content-length': bytes.length });
  let sent = 0;
  const timer = setInterval(() => {
    response.write(bytes.subarray(sent, sent + DRIP_BYTES));
    sent += DRIP_BYTES;
    if (sent >= bytes.length) response.end();
  }, 100);
  response.on('close', () => clearInterval(timer));
}
