/**
 * One HTTP exchange with timeouts. It follows no redirect, adds no credential and retries nothing; the layers above do
 * each of these once. Every failure is an ObdError that names the host.
 *
 * The caller must read every body to its end, cut it off or discard it; an abandoned body holds its connection until
 * the idle timeout.
 */
import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import requestBy from 'undici/lib/api/api-request.js';
import buildConnector from 'undici/lib/core/connect.js';
import Agent from 'undici/lib/dispatcher/agent.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { TlsSettings } from './endpoint.js';
import type { RegistryLimits } from './registry-limits.js';
import { transportError } from './transport-error.js';
import { trustedRoots } from './trusted-roots.js';

/** Enough for every reader of a cache; more connections would only queue at the registry. */
const CONNECTIONS_PER_HOST_MAX = 32;
/** Idle connections stay open between the reads of a starting container, but not for ever. */
const KEEP_ALIVE_MS = 15_000;
/** discard() reads up to this many bytes, to keep the connection; cutting off a longer body costs less. */
const DISCARD_BYTES_MAX = 64 << 10;
/** discard() cuts off a body that takes longer: a read may wait for the request that follows. */
const DISCARD_MS_MAX = 1_000;
/** Distinct TLS settings with pooled connections; beyond this, the oldest settings lose their pool. */
const TLS_SETTINGS_MAX = 64;
/** Google Artifact Registry answers with 21 KB of headers; Node's own limit is 16 KiB. */
const HEADER_BYTES_MAX = 64 << 10;
const USER_AGENT = 'obd-ts';

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | Readable | undefined;
  readonly signal: AbortSignal | undefined;
  /** Undefined trusts the system's authorities. */
  readonly tls?: TlsSettings | undefined;
  /** Replaces `headersMs` for slow answers. Interim answers may take as long. */
  readonly headersMs?: number | undefined;
  /** Uses a new connection and closes it after the answer: the pooled ones may all lead to one bad server. */
  readonly freshConnection?: boolean | undefined;
  /** For messages: "Cannot read sha256:...". */
  readonly doing: string;
  /** The registry's address that led to `url`: HttpResponse.askedOf. */
  readonly askedOf?: string | undefined;
}

export class HttpClient {
  readonly #limits: RegistryLimits;
  readonly #agent: Agent;
  /** Requests with different TLS settings never share a connection; pooled requests never share a fresh one. */
  readonly #agents = new Map<string, Agent>();
  /** Settings as text, computed once per object: settings with equal contents share connections. */
  readonly #tlsKeys = new WeakMap<TlsSettings, string>();
  #closed = false;

  constructor(limits: RegistryLimits) {
    this.#limits = limits;
    this.#agent = newAgent(limits, undefined);
  }

  /** @throws {ObdError} errors of transportError(); the signal's reason. */
  async send(request: HttpRequest): Promise<HttpResponse> {
    const { method, url, headers, body, signal, tls, freshConnection, doing } = request;
    const headersMs = request.headersMs ?? this.#limits.headersMs;
    let interimSinceMs: number | undefined;
    // undici's timer starts again after each interim answer.
    const onInfo = () => {
      const nowMs = performance.now();
      interimSinceMs ??= nowMs;
      if (nowMs - interimSinceMs <= headersMs) return;
      const problem = 'it sends interim answers, such as 103, and no final one';
      throw new ObdError(ErrorCodes.Unavailable, `${doing}: ${url.host}: ${problem}`);
    };
    try {
      const response = await requestBy.call(this.#agentFor(tls, freshConnection === true), {
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method,
        headers: { 'user-agent': USER_AGENT, ...headers },
        body: body ?? null,
        ...(signal === undefined ? {} : { signal }),
        headersTimeout: headersMs,
        onInfo,
        ...(freshConnection ? { reset: true } : {}),
      });
      return new HttpResponse(response, request);
    } catch (error) {
      throw isAbort(error, signal) ? error : transportError(error, doing, url.host);
    }
  }

  /** Aborts the requests in flight. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#agent, ...this.#agents.values()].map((agent) => agent.destroy()));
  }

  #agentFor(tls: TlsSettings | undefined, isFresh: boolean): Agent {
    if ((tls === undefined && !isFresh) || this.#closed) return this.#agent;
    const key = `${isFresh ? 'fresh' : 'pooled'} ${this.#tlsKey(tls)}`;
    let agent = this.#agents.get(key);
    if (agent === undefined) {
      const [oldest] = this.#agents;
      if (oldest !== undefined && this.#agents.size >= TLS_SETTINGS_MAX) {
        this.#agents.delete(oldest[0]);
        void oldest[1].close();
      }
      agent = newAgent(this.#limits, tls);
      this.#agents.set(key, agent);
    }
    return agent;
  }

  #tlsKey(tls: TlsSettings | undefined): string {
    if (tls === undefined) return '';
    let key = this.#tlsKeys.get(tls);
    if (key === undefined) {
      key = JSON.stringify(tls);
      this.#tlsKeys.set(tls, key);
    }
    return key;
  }
}

/** One connection for each request in flight: a stream that is cut off, or too slow, holds up no other. */
const HTTP1 = { allowH2: false };

function newAgent(
  { connectMs, headersMs, bodyIdleMs }: RegistryLimits,
  tls: TlsSettings | undefined,
): Agent {
  return new Agent({
    connect: lazyConnector(connectMs, tls),
    headersTimeout: headersMs,
    bodyTimeout: bodyIdleMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connections: CONNECTIONS_PER_HOST_MAX,
    maxHeaderSize: HEADER_BYTES_MAX,
    ...HTTP1,
  });
}

export class HttpResponse {
  readonly status: number;
  readonly url: URL;
  readonly doing: string;
  /** The address of the registry, or of its mirror, that sent this answer or redirected to it. */
  readonly askedOf: string | undefined;
  readonly #response: Dispatcher.ResponseData;
  readonly #signal: AbortSignal | undefined;

  constructor(
    response: Dispatcher.ResponseData,
    { url, doing, askedOf, signal }: Pick<HttpRequest, 'url' | 'doing' | 'askedOf' | 'signal'>,
  ) {
    this.status = response.statusCode;
    this.url = url;
    this.doing = doing;
    this.askedOf = askedOf;
    this.#response = response;
    this.#signal = signal;
    // A body that is cut off emits an error; its reader gets that error from the read.
    response.body.on('error', () => {});
  }

  /** All values, joined as RFC 9110 5.3 allows; undefined if there is none. */
  header(name: string): string | undefined {
    const value = this.#response.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }

  /** Each value of a header that may come more than once. */
  headerValues(name: string): readonly string[] {
    const value = this.#response.headers[name] ?? [];
    return Array.isArray(value) ? value : [value];
  }

  /** Content-Length; undefined if it is missing or not a number. */
  get contentLength(): number | undefined {
    const text = this.header('content-length');
    return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
  }

  /**
   * Yields the body in pieces; leaving the loop cuts the rest off.
   *
   * @throws {ObdError} as HttpClient.send().
   */
  async *pieces(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const piece of this.#response.body) yield piece as Uint8Array;
    } catch (error) {
      throw isAbort(error, this.#signal) ? error : transportError(error, this.doing, this.url.host);
    }
  }

  /** Returns the whole body. @throws {ObdError} `Registry` if it is longer, and errors of pieces(). */
  async readAll(bytesMax: number): Promise<Uint8Array> {
    const tooLong = () => {
      const problem = `the answer of ${this.url.host} is longer than ${bytesMax} bytes`;
      return new ObdError(ErrorCodes.Registry, `${this.doing}: ${problem}`);
    };
    if ((this.contentLength ?? 0) > bytesMax) {
      this.cutOff();
      throw tooLong();
    }
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of this.pieces()) {
      length += piece.length;
      if (length > bytesMax) throw tooLong();
      pieces.push(piece);
    }
    return Buffer.concat(pieces, length);
  }

  /** Drops the rest of the body, within DISCARD_MS_MAX; the connection is reused if little of it was left. */
  async discard(): Promise<void> {
    const timer = setTimeout(() => this.cutOff(), DISCARD_MS_MAX);
    await this.#response.body.dump({ limit: DISCARD_BYTES_MAX }).catch(() => {});
    clearTimeout(timer);
  }

  /** Closes the connection without reading on. @param why - The error that pieces() throws. */
  cutOff(why?: ObdError): void {
    this.#response.body.destroy(why);
  }
}

/** Whether the caller aborted the request; an expired time limit is the peer's fault. */
function isAbort(error: unknown, signal: AbortSignal | undefined): boolean {
  if (signal?.aborted !== true || error !== signal.reason) return false;
  return !(error instanceof Error && error.name === 'TimeoutError');
}

function lazyConnector(timeout: number, tls?: TlsSettings): buildConnector.connector {
  const plain = buildConnector({ timeout, ...HTTP1 });
  let secure: buildConnector.connector | undefined;
  return (options, callback) => {
    if (options.protocol !== 'https:') return plain(options, callback);
    try {
      secure ??= buildConnector({
        timeout,
        secureContext: trustedRoots(tls?.ca ?? []),
        rejectUnauthorized: tls?.skipVerify !== true,
        ...HTTP1,
      });
    } catch (error) {
      return callback(error as Error, null);
    }
    return secure(options, callback);
  };
}
