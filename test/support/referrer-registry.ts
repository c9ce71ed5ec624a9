/**
 * An in-memory registry on a port of this machine with the referrers API of OCI distribution spec 1.1, or without it. It
 * speaks the protocol independently of our own code: blobs with ranges, uploads, manifests, tags, deletion, tokens.
 *
 *     const registry = await ReferrerRegistry.start();
 *     registry.hasReferrers = false;                                  // as distribution 2.8
 *     registry.needsToken = true;
 *     registry.faults.push({ of: /^GET .*referrers/, answer: 'drop' }); // once
 *     registry.faults.push({ of: /^GET .*blobs/, answer: { cutAt: 5000 } }); // the rest never comes
 *     registry.count(/^GET .*blobs/);
 *     await registry.stop();
 */
import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const INDEX = 'application/vnd.oci.image.index.v1+json';

export interface StoredDocument {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

export interface RegistryFault {
  /** Matches `GET /v2/x/y/manifests/z?query`. The first match of a request is used up. */
  readonly of: RegExp;
  readonly answer:
    | 'drop'
    | 'silence'
    /** Of a blob: so many bytes, and then the end of the connection, or nothing for ever. */
    | { readonly cutAt: number }
    | { readonly stallAt: number }
    /** Of a blob: a byte so often. */
    | { readonly dripMs: number }
    | {
        readonly status: number;
        readonly headers?: Readonly<Record<string, string>>;
        readonly body?: string;
      };
}

interface Listed {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly artifactType: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A part of a blob that was asked for. */
export interface ServedPart {
  readonly digest: string;
  readonly first: number;
  /** What the body would have, and how much of it was sent. */
  readonly length: number;
  sent: number;
}

export class ReferrerRegistry {
  /** By digest; all repositories share them. */
  readonly blobs = new Map<string, Buffer>();
  /** By `repository@digest`. */
  readonly manifests = new Map<string, StoredDocument>();
  /** Digests by `repository:tag`. */
  readonly tags = new Map<string, string>();
  /** `GET /v2/x/y/manifests/z?query` of each request, those to the token server too. */
  readonly requests: string[] = [];
  readonly faults: RegistryFault[] = [];
  /** The blobs that were sent, in order. */
  readonly served: ServedPart[] = [];
  /** Whether it has the API, and answers the put of an artifact with OCI-Subject. */
  hasReferrers = true;
  /** Whether the API filters by artifact type. */
  filters = true;
  /** Entries on a page of the API; undefined for one page. */
  pageSize: number | undefined;
  needsToken = false;
  allowsDelete = true;
  /** Each request is answered so much later, with jitter up to twice as late. */
  delayMs = 0;
  /** Scopes by token. */
  readonly #tokens = new Map<string, string>();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
  }

  static async start(): Promise<ReferrerRegistry> {
    const registry = new ReferrerRegistry();
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** host:port, speaking plain HTTP. */
  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The number of requests that match; see `requests`. */
  count(pattern: RegExp): number {
    return this.requests.filter((request) => pattern.test(request)).length;
  }

  /** @returns Its digest. */
  addBlob(bytes: Uint8Array): string {
    const digest = digestOf(bytes);
    this.blobs.set(digest, Buffer.from(bytes));
    return digest;
  }

  /**
   * @param tag - Undefined stores it by digest only.
   * @returns Its digest.
   */
  addManifest(
    repository: string,
    tag: string | undefined,
    bytes: Uint8Array,
    mediaType: string,
  ): string {
    const digest = digestOf(bytes);
    this.manifests.set(`${repository}@${digest}`, { bytes: Buffer.from(bytes), mediaType });
    if (tag !== undefined) this.tags.set(`${repository}:${tag}`, digest);
    return digest;
  }

  /** The manifest or index at a tag or digest. */
  manifestAt(repository: string, target: string): StoredDocument | undefined {
    const digest = target.includes(':') ? target : this.tags.get(`${repository}:${target}`);
    return this.manifests.get(`${repository}@${digest}`);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', `http://${this.host}`);
    const method = request.method ?? '';
    const line = `${method} ${url.pathname}${url.search}`;
    this.requests.push(line);
    const body = await bodyOf(request);
    if (this.delayMs > 0) await sleep(this.delayMs * (1 + Math.random()));
    const at = this.faults.findIndex(({ of }) => of.test(line));
    const [fault] = at === -1 ? [] : this.faults.splice(at, 1);
    if (fault?.answer === 'drop') return void request.socket.destroy();
    if (fault?.answer === 'silence') return;
    if (fault !== undefined && 'status' in fault.answer) {
      const { status, headers = {}, body: text = '' } = fault.answer;
      return void response.writeHead(status, { ...headers }).end(text);
    }
    if (url.pathname === '/token') return void this.#token(response, url, body);
    const [, repository = '', kind, target = ''] =
      /^\/v2\/(.+?)\/(blobs|manifests|referrers)\/(.*)$/.exec(url.pathname) ?? [];
    if (!this.#mayPass(request, response, repository)) return;
    if (kind === 'manifests')
      return void this.#manifest(request, response, repository, target, body);
    if (kind === 'referrers' && this.hasReferrers) {
      return void this.#referrers(response, repository, target, url);
    }
    if (kind !== 'blobs') return void refuse(response, 404, 'NOT_FOUND');
    if (target.startsWith('uploads/')) return void this.#upload(method, response, url, body);
    this.#blob(request, response, target, fault?.answer);
  }

  #mayPass(request: IncomingMessage, response: ServerResponse, repository: string): boolean {
    if (!this.needsToken) return true;
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    const action = isRead ? 'pull' : request.method === 'DELETE' ? 'delete' : 'push';
    const token = request.headers.authorization?.replace('Bearer ', '') ?? '';
    const [, name, actions = ''] = this.#tokens.get(token)?.split(':') ?? [];
    if (name === repository && actions.split(',').includes(action)) return true;
    const wanted = action === 'push' ? 'pull,push' : action;
    const realm = `Bearer realm="http://${this.host}/token",service="test"`;
    response.setHeader('www-authenticate', `${realm},scope="repository:${repository}:${wanted}"`);
    refuse(response, 401, 'UNAUTHORIZED');
    return false;
  }

  #token(response: ServerResponse, url: URL, body: Buffer): void {
    const form = new URLSearchParams(body.toString());
    const scope = url.searchParams.get('scope') ?? form.get('scope') ?? '';
    const token = randomBytes(8).toString('hex');
    this.#tokens.set(token, scope);
    response.end(JSON.stringify({ token, expires_in: 300 }));
  }

  #blob(
    request: IncomingMessage,
    response: ServerResponse,
    digest: string,
    fault: Exclude<RegistryFault['answer'], string> | undefined,
  ): void {
    const blob = this.blobs.get(digest);
    if (blob === undefined) return void refuse(response, 404, 'BLOB_UNKNOWN');
    if (request.method === 'DELETE') {
      if (!this.allowsDelete) return void refuse(response, 405, 'UNSUPPORTED');
      this.blobs.delete(digest);
      return void response.writeHead(202).end();
    }
    const [, from, last] = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? '') ?? [];
    const first = Number(from ?? 0);
    const end = last === undefined || last === '' ? blob.length : Number(last) + 1;
    const part = blob.subarray(first, end);
    response.setHeader('content-length', part.length);
    if (from !== undefined) {
      if (part.length === 0) return void refuse(response, 416, 'RANGE_INVALID');
      const range = `bytes ${first}-${first + part.length - 1}/${blob.length}`;
      response.setHeader('content-range', range);
    }
    response.writeHead(from === undefined ? 200 : 206);
    if (request.method === 'HEAD') return void response.end();
    const served = { digest, first, length: part.length, sent: 0 };
    this.served.push(served);
    send(response, part, served, fault);
  }

  #upload(method: string, response: ServerResponse, url: URL, body: Buffer): void {
    if (method === 'DELETE') return void response.writeHead(204).end();
    if (method === 'POST') {
      const location = `${url.pathname}${randomBytes(4).toString('hex')}`;
      return void response.writeHead(202, { location }).end();
    }
    if (digestOf(body) !== url.searchParams.get('digest')) {
      return void refuse(response, 400, 'DIGEST_INVALID');
    }
    this.addBlob(body);
    response.writeHead(201).end();
  }

  #manifest(
    request: IncomingMessage,
    response: ServerResponse,
    repository: string,
    target: string,
    body: Buffer,
  ): void {
    if (request.method === 'PUT') return void this.#putManifest(request, response, body, target);
    const found = this.manifestAt(repository, target);
    if (found === undefined) return void refuse(response, 404, 'MANIFEST_UNKNOWN');
    if (request.method === 'DELETE') {
      if (!this.allowsDelete) return void refuse(response, 405, 'UNSUPPORTED');
      if (!target.includes(':')) this.tags.delete(`${repository}:${target}`);
      else this.manifests.delete(`${repository}@${target}`);
      return void response.writeHead(202).end();
    }
    response.writeHead(200, {
      'content-type': found.mediaType,
      'content-length': found.bytes.length,
      'docker-content-digest': digestOf(found.bytes),
    });
    response.end(request.method === 'HEAD' ? undefined : found.bytes);
  }

  /** Refuses a document whose blobs or manifests it lacks, as distribution does. */
  #putManifest(
    { url, headers }: IncomingMessage,
    response: ServerResponse,
    bytes: Buffer,
    target: string,
  ): void {
    const [, repository = ''] = /^\/v2\/(.+)\/manifests\//.exec(url ?? '') ?? [];
    const digest = digestOf(bytes);
    if (target.includes(':') && target !== digest)
      return void refuse(response, 400, 'DIGEST_INVALID');
    const json = JSON.parse(bytes.toString());
    const parts: Listed[] = json.manifests ?? [json.config, ...json.layers];
    const isThere = (part: Listed) =>
      json.manifests === undefined
        ? this.blobs.get(part.digest)?.length === part.size
        : this.manifests.has(`${repository}@${part.digest}`);
    if (!parts.every(isThere)) return void refuse(response, 400, 'MANIFEST_BLOB_UNKNOWN');
    const tag = target.includes(':') ? undefined : target;
    this.addManifest(repository, tag, bytes, headers['content-type'] ?? '');
    const subject: unknown = json.subject?.digest;
    if (this.hasReferrers && typeof subject === 'string') {
      response.setHeader('OCI-Subject', subject);
    }
    response.writeHead(201, { 'docker-content-digest': digest }).end();
  }

  #referrers(response: ServerResponse, repository: string, subject: string, url: URL): void {
    const wanted = url.searchParams.get('artifactType');
    const all = [...this.manifests]
      .filter(([name]) => name.startsWith(`${repository}@`))
      .flatMap(([, stored]) => listedFor(subject, stored))
      .filter(({ artifactType }) => !this.filters || wanted === null || artifactType === wanted);
    const from = Number(url.searchParams.get('from') ?? 0);
    const end = from + (this.pageSize ?? all.length);
    const manifests = all.slice(from, end);
    if (end < all.length) {
      const next = new URL(url);
      next.searchParams.set('from', String(end));
      response.setHeader('link', `<${next.pathname}${next.search}>; rel="next"`);
    }
    if (this.filters && wanted !== null) response.setHeader('OCI-Filters-Applied', 'artifactType');
    response.setHeader('content-type', INDEX);
    response.end(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests }));
  }
}

/** The entry of an artifact in the list of its subject; none for another document. */
function listedFor(subject: string, { bytes, mediaType }: StoredDocument): Listed[] {
  const json = JSON.parse(bytes.toString());
  if (json.subject?.digest !== subject) return [];
  const artifactType: string = json.artifactType ?? json.config?.mediaType ?? '';
  const described = { mediaType, digest: digestOf(bytes), size: bytes.length, artifactType };
  return [
    json.annotations === undefined ? described : { ...described, annotations: json.annotations },
  ];
}

function send(
  response: ServerResponse,
  part: Buffer,
  served: ServedPart,
  fault: Exclude<RegistryFault['answer'], string> | undefined,
): void {
  if (fault === undefined || 'status' in fault) {
    served.sent = part.length;
    return void response.end(part);
  }
  if ('dripMs' in fault) {
    const timer = setInterval(() => {
      response.write(part.subarray(served.sent, served.sent + 1));
      if (++served.sent === part.length) response.end();
    }, fault.dripMs);
    response.on('close', () => clearInterval(timer));
    return;
  }
  const end = 'cutAt' in fault ? fault.cutAt : fault.stallAt;
  served.sent = Math.min(part.length, end);
  response.write(part.subarray(0, end), () => {
    if ('cutAt' in fault) response.destroy();
  });
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.removeHeader('content-length');
  response.writeHead(status).end(JSON.stringify({ errors: [{ code }] }));
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}
