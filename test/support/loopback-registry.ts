/**
 * An in-memory registry on a port of this machine that misbehaves on request. It speaks just enough of the
 * distribution protocol, independently of our own code.
 *
 *     const registry = await LoopbackRegistry.start();
 *     registry.faults.push('truncate', { status: 503 });    // for the next two requests
 *     registry.login = { kind: 'bearer', username: 'u', password: 'p' };
 *     registry.storage = otherRegistry;                     // blobs are redirected there
 */
import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Each affects one request; token requests take theirs from `tokenFaults`. */
export type Fault =
  /** The connection ends before an answer. */
  | 'reset'
  /** Half of the body, then the connection ends. */
  | 'truncate'
  /** Half of the body, then nothing, for ever. */
  | 'stall'
  /** No answer, for ever. */
  | 'silence'
  /** 200 and everything. */
  | 'ignore-range'
  /** 206 with a range next to the requested one. */
  | 'wrong-range'
  /** 206 without Content-Range. */
  | 'no-content-range'
  /** A bit of the body is flipped. */
  | 'wrong-bytes'
  | {
      readonly status: number;
      readonly headers?: Record<string, string>;
      readonly body?: string;
      readonly encoding?: BufferEncoding;
    };

export interface Login {
  readonly kind: 'basic' | 'bearer';
  /** An empty name: a token without a login. */
  readonly username: string;
  readonly password: string;
}

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

export class LoopbackRegistry {
  readonly blobs = new Map<string, Buffer>();
  /** By `repository/tag` and `repository/digest`. */
  readonly manifests = new Map<string, { mediaType: string; bytes: Buffer }>();
  readonly seen: SeenRequest[] = [];
  readonly faults: Fault[] = [];
  readonly tokenFaults: Fault[] = [];
  login: Login | undefined;
  /** Seconds; undefined omits it from the answer. */
  tokenLife: number | undefined = 300;
  storage: LoopbackRegistry | undefined;
  /** `scheme://host` of the redirects to storage, in place of the storage's own. */
  storageOrigin: string | undefined;
  readonly #tokens = new Set<string>();
  /** Signatures of redirects that this one, as storage, accepts. */
  readonly #signatures = new Set<string>();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
  }

  static async start(): Promise<LoopbackRegistry> {
    const registry = new LoopbackRegistry();
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  addBlob(bytes: Uint8Array): string {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    this.blobs.set(digest, Buffer.from(bytes));
    return digest;
  }

  /** Refuses all issued tokens from now on, as if they had expired. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  revokeSignatures(): void {
    this.#signatures.clear();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', `http://${this.host}`);
    const { authorization, range } = request.headers;
    const method = request.method ?? '';
    this.seen.push({ method, path: `${url.pathname}${url.search}`, authorization, range });
    const isToken = url.pathname === '/token';
    const fault = (isToken ? this.tokenFaults : this.faults).shift();
    if (fault === 'reset') return void request.socket.destroy();
    if (fault === 'silence') return;
    if (typeof fault === 'object') {
      response
        .writeHead(fault.status, fault.headers)
        .end(fault.body ?? '', fault.encoding ?? 'utf8');
      return;
    }
    if (isToken) return await this.#token(request, response);
    if (url.pathname.startsWith('/storage/')) {
      const good = this.#signatures.has(url.searchParams.get('signature') ?? '');
      if (!good) return void response.writeHead(403).end('<Error>expired</Error>');
      return this.#blob(request, response, url.pathname.slice('/storage/'.length), fault);
    }
    if (!this.#isLoggedIn(authorization)) return this.#challenge(response, method);
    const [, repository, kind, rest] =
      /^\/v2\/(.+)\/(blobs|manifests)\/(.+)$/.exec(url.pathname) ?? [];
    if (kind === 'manifests') {
      return await this.#manifest(request, response, `${repository}/${rest}`, repository ?? '');
    }
    if (rest?.startsWith('uploads/')) return await this.#upload(request, response, url);
    if (this.storage !== undefined && method === 'GET') {
      const signature = randomBytes(8).toString('hex');
      this.storage.#signatures.add(signature);
      const origin = this.storageOrigin ?? `http://${this.storage.host}`;
      const location = `${origin}/storage/${rest}?signature=${signature}`;
      return void response.writeHead(307, { location }).end();
    }
    this.#blob(request, response, rest ?? '', fault);
  }

  #isLoggedIn(authorization: string | undefined): boolean {
    if (this.login === undefined) return true;
    if (this.login.kind === 'basic') return authorization === basic(this.login);
    return this.#tokens.has((authorization ?? '').replace('Bearer ', ''));
  }

  #challenge(response: ServerResponse, method: string): void {
    const action = method === 'GET' || method === 'HEAD' ? 'pull' : 'pull,push';
    const bearer = `Bearer realm="http://${this.host}/token",service="loopback",scope="repository:x/y:${action}"`;
    const challenge = this.login?.kind === 'basic' ? 'Basic realm="loopback"' : bearer;
    const body = JSON.stringify({ errors: [{ code: 'UNAUTHORIZED', message: 'who are you?' }] });
    response.writeHead(401, { 'www-authenticate': challenge }).end(body);
  }

  async #token(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const form = new URLSearchParams((await bodyOf(request)).toString());
    const login = this.login as Login;
    const good =
      login.username === '' ||
      request.headers.authorization === basic(login) ||
      form.get('refresh_token') === login.password;
    if (!good) return void response.writeHead(401).end();
    const token = randomBytes(8).toString('hex');
    this.#tokens.add(token);
    response.end(JSON.stringify({ token, expires_in: this.tokenLife }));
  }

  #blob(
    request: IncomingMessage,
    response: ServerResponse,
    digest: string,
    fault: Exclude<Fault, object> | undefined,
  ): void {
    const blob = this.blobs.get(digest);
    if (blob === undefined) return void response.writeHead(404).end();
    const match = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? '');
    const ranged = match !== null && fault !== 'ignore-range';
    let first = ranged ? Number(match[1]) : 0;
    let end = ranged && match[2] !== '' ? Math.min(Number(match[2]) + 1, blob.length) : blob.length;
    if (ranged && first >= blob.length) return void response.writeHead(416).end();
    if (fault === 'wrong-range') {
      first++;
      end++;
    }
    const part = Buffer.from(blob.subarray(first, end));
    if (fault === 'wrong-bytes') part[0] = (part[0] as number) ^ 1;
    response.setHeader('content-length', part.length);
    if (ranged && fault !== 'no-content-range') {
      response.setHeader('content-range', `bytes ${first}-${end - 1}/${blob.length}`);
    }
    response.writeHead(ranged ? 206 : 200);
    if (request.method === 'HEAD') return void response.end();
    if (fault !== 'truncate' && fault !== 'stall') return void response.end(part);
    response.write(part.subarray(0, part.length >> 1), () => {
      if (fault === 'truncate') request.socket.destroy();
    });
  }

  async #upload(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    if (request.method === 'POST') {
      const location = `${url.pathname}${randomBytes(4).toString('hex')}?state=a%2Fb`;
      return void response.writeHead(202, { location }).end();
    }
    const digest = this.addBlob(await bodyOf(request));
    if (digest === url.searchParams.get('digest')) return void response.writeHead(201).end();
    this.blobs.delete(digest);
    response.writeHead(400).end(JSON.stringify({ errors: [{ code: 'DIGEST_INVALID' }] }));
  }

  async #manifest(
    request: IncomingMessage,
    response: ServerResponse,
    name: string,
    repository: string,
  ): Promise<void> {
    if (request.method === 'PUT') {
      const bytes = await bodyOf(request);
      const stored = { mediaType: request.headers['content-type'] ?? '', bytes };
      const hex = createHash('sha256').update(bytes).digest('hex');
      this.manifests.set(name, stored);
      this.manifests.set(`${repository}/sha256:${hex}`, stored);
      return void response.writeHead(201).end();
    }
    const found = this.manifests.get(name);
    if (found === undefined) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-type': found.mediaType }).end(found.bytes);
  }
}

function basic({ username, password }: Login): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}
