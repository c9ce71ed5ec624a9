/**
 * A blob of a registry, read by ranges: the data behind a virtual disk.
 *
 * Registries redirect a blob's GET to storage, with a URL that is signed for minutes. The URL is kept for
 * SIGNED_URL_MS, so that a read costs one request and not two, and dropped when an attempt with it fails.
 * It is a secret: no message contains it.
 *
 * An address that answers with something else than the blob, or breaks off, is passed by for another one, at once; so is
 * the sender of bytes that fail a check later, which invalidated() reports.
 *
 * An attempt is one GET. The cache decides on retries and their deadline (src/cache/blob-fetches.ts).
 */
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { AttemptOptions, RangedSource, RangeFill, WholeAnswer } from '../io/ranged-source.js';
import { TooSlow } from '../io/speed-floor.js';
import type { Access } from './access.js';
import { BlobSenders } from './blob-senders.js';
import type { HttpResponse } from './http-client.js';
import { contentRange, isContent, type RangeAnswer, rangeAnswer } from './range-answer.js';
import type { RegistryExchange } from './registry-exchange.js';
import { FETCH_ATTEMPTS_MAX, type RegistryLimits } from './registry-limits.js';
import { retrying } from './retry.js';

/** overlaybd's own figure; the shortest lives of signed URLs seen are 10 minutes. */
const SIGNED_URL_MS = 300_000;

/** Limit for legal answers that are shorter than the range (RFC 9110 15.3.7); more count as a failure. */
const PARTS_MAX = 64;

const REMEDIES = {
  404: 'the image is not complete there, push it again',
  416: 'the blob is shorter there than its image says, push the image again',
};

type Part = Extract<RangeAnswer, { kind: 'part' }>;

interface Dependencies {
  readonly exchange: RegistryExchange;
  readonly limits: RegistryLimits;
  readonly access: Access;
  readonly digest: string;
}

export class RemoteBlobRanges implements RangedSource {
  readonly label: string;
  /** `sha256:...` */
  readonly digest: string;
  readonly sizeBytes: number;
  readonly #endpoint: RangeEndpoint;
  readonly #senders = new BlobSenders();
  /** Bytes failed a check, and nothing was asked for since. */
  #hasFailedCheck = false;

  private constructor(endpoint: RangeEndpoint, digest: string, sizeBytes: number) {
    this.label = endpoint.label;
    this.digest = digest;
    this.sizeBytes = sizeBytes;
    this.#endpoint = endpoint;
  }

  /**
   * `host` or `host:port` of the registry, not of the storage that it redirects to. Plain HTTP keeps its `:80`: the
   * registry at port 443 of the host may be another one.
   */
  get registry(): string {
    const { protocol, host, port } = this.#endpoint.home;
    return protocol === 'http:' && port === '' ? `${host}:80` : host;
  }

  /**
   * @param sizeBytes - If undefined, the registry is asked with a GET of one byte, because storage may refuse a HEAD by
   *   a URL signed for GET. A known size costs no request.
   * @throws {ObdError} as attempt().
   */
  static async open(blob: Dependencies, sizeBytes: number | undefined): Promise<RemoteBlobRanges> {
    const endpoint = new RangeEndpoint(blob);
    const { digest, limits } = blob;
    return new RemoteBlobRanges(endpoint, digest, sizeBytes ?? (await sizeOf(endpoint, limits)));
  }

  /**
   * Sends one request, and more only after an answer that is shorter than the range, or where another address is left.
   *
   * @throws {ObdError} `Unavailable`, `Unauthorized`, `NotFound`, `Registry`, `FailedPrecondition` if the client is
   *   closed; the signal's reason.
   */
  async attempt(
    fill: RangeFill,
    { signal, after }: AttemptOptions = {},
  ): Promise<WholeAnswer | undefined> {
    const { bytes, offset } = fill;
    const end = offset + bytes.length;
    if (!(offset >= 0 && end <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${end}) is outside ${this.label}`);
    }
    if (hasCode(after, ErrorCodes.Unauthorized)) this.#endpoint.forgetLogin();
    const doing = `Cannot read ${this.label} at ${offset}`;
    const passedBy = new Set<string>();
    try {
      for (let parts = 0; fill.filled < bytes.length && parts < PARTS_MAX; parts++) {
        const from = offset + fill.filled;
        const freshConnection = (after !== undefined || this.#hasFailedCheck) && parts === 0;
        this.#hasFailedCheck = false;
        const request = { from, end, doing, signal, freshConnection };
        const response = await this.#endpoint.get(request);
        const { digest, sizeBytes } = this;
        try {
          const answer = rangeAnswer(response, { digest, sizeBytes, from, end });
          if (answer.kind === 'whole') return this.#wholeAnswer(response, answer.sizeKnown);
          this.#senders.add(from, from + answer.length, response.askedOf);
          await take(fill, response, answer);
        } catch (error) {
          if (error instanceof TooSlow) throw error;
          if (!this.#passBy(response.askedOf, signal, error, passedBy)) throw error;
        }
      }
      if (fill.filled === bytes.length) return undefined;
      throw incomplete(doing, this.registry, fill);
    } catch (error) {
      // Its end by the caller says nothing of the address.
      if (signal?.aborted !== true) this.#endpoint.forgetSignedUrl();
      throw error;
    }
  }

  /** The next attempt uses a new connection, and another address than the one that sent these bytes if there is one. */
  invalidated(offset: number, length: number): void {
    this.#hasFailedCheck = true;
    const message = `Cannot use bytes ${offset} to ${offset + length} of ${this.label}: they failed a check`;
    const { digest } = this;
    const error = new ObdError(ErrorCodes.Unavailable, message, { digest, offset, length });
    for (const askedOf of this.#senders.of(offset, offset + length)) {
      if (this.#passBy(askedOf, undefined, error)) this.#senders.endWhole(askedOf, error);
    }
  }

  /** @returns Whether another address is asked next. */
  #passBy(
    askedOf: string | undefined,
    signal: AbortSignal | undefined,
    error: unknown,
    passedBy?: Set<string>,
  ): boolean {
    if (signal?.aborted === true || !(error instanceof ObdError)) return false;
    this.#endpoint.forgetSignedUrl();
    return this.#endpoint.passBy(askedOf, error, passedBy);
  }

  #wholeAnswer(response: HttpResponse, sizeKnown: boolean): WholeAnswer {
    const { askedOf, url } = response;
    this.#senders.add(0, this.sizeBytes, askedOf);
    return {
      host: url.host,
      sizeKnown,
      pieces: (floor) => this.#senders.watchWhole(response, floor.watch(response)),
      cutOff: () => response.cutOff(),
      refuse: (error) => {
        response.cutOff();
        return this.#passBy(askedOf, undefined, error);
      },
    };
  }
}

/** @throws {ObdError} `Unavailable` if the body ends before the part does. */
async function take(fill: RangeFill, response: HttpResponse, part: Part): Promise<void> {
  const until = fill.filled + part.length;
  let { skip } = part;
  for await (const piece of fill.floor.watch(response)) {
    // Not as soon as the part is full: leaving before the end of a body closes its connection.
    if (fill.filled === until) break;
    const skipped = Math.min(skip, piece.length);
    skip -= skipped;
    const wanted = piece.subarray(skipped, skipped + until - fill.filled);
    fill.bytes.set(wanted, fill.filled);
    fill.filled += wanted.length;
    if (wanted.length > 0) fill.progressed();
  }
  if (fill.filled < until) throw incomplete(response.doing, response.url.host, fill);
}

function incomplete(doing: string, host: string, { filled, bytes }: RangeFill): ObdError {
  const problem = `${host} sent ${filled} of ${bytes.length} bytes`;
  return new ObdError(ErrorCodes.Unavailable, `${doing}: ${problem}`);
}

/** One GET of [from, end). */
interface RangeRequest {
  readonly from: number;
  readonly end: number;
  /** For messages. */
  readonly doing: string;
  readonly signal: AbortSignal | undefined;
  readonly freshConnection?: boolean;
}

/** Where the registry last redirected to. */
interface SignedUrl {
  readonly url: URL;
  /** HttpResponse.askedOf */
  readonly askedOf: string | undefined;
  readonly goodUntilMs: number;
  /** RegistryExchange.settings at the time of the request; a reload invalidates the URL. */
  readonly settings: number;
}

/** The current address of the blob's bytes: the registry, or the URL of its last redirect. */
class RangeEndpoint {
  readonly label: string;
  readonly #exchange: RegistryExchange;
  readonly #access: Access;
  readonly #path: string;
  #signed: SignedUrl | undefined;

  constructor({ exchange, access, digest }: Dependencies) {
    this.label = `${digest} of ${access.host}/${access.repository}`;
    this.#exchange = exchange;
    this.#access = access;
    this.#path = `blobs/${digest}`;
  }

  /** Returns the registry's own URL for the blob. A reload may change it. */
  get home(): URL {
    return this.#exchange.urlOf(this.#access, this.#path);
  }

  /** @returns A 206 response, or a 200 of a server that ignores ranges. */
  async get(request: RangeRequest): Promise<HttpResponse> {
    const signed = this.#signed;
    const { settings } = this.#exchange;
    const isGood = signed !== undefined && signed.settings === settings;
    if (isGood && signed.goodUntilMs > performance.now()) {
      // After an error here, only the next attempt asks the registry: a dead storage host must not cost two timeouts.
      const response = await this.#send(signed.url, request, signed.askedOf);
      if (isContent(response)) return response;
      await response.discard();
    }
    this.forgetSignedUrl();
    const response = await this.#send(this.home, request);
    if (!isContent(response)) throw await this.#exchange.errorOf(response, this.#access, REMEDIES);
    if (!this.#exchange.isHome(this.#access, response.url)) {
      const goodUntilMs = performance.now() + SIGNED_URL_MS;
      const { url, askedOf } = response;
      this.#signed = { url, askedOf, goodUntilMs, settings };
    }
    return response;
  }

  forgetSignedUrl(): void {
    this.#signed = undefined;
  }

  passBy(askedOf: string | undefined, error: ObdError, passedBy?: Set<string>): boolean {
    return this.#exchange.passBy(this.#access, this.home, askedOf, error, passedBy);
  }

  forgetLogin(): void {
    this.#exchange.forgetLogin(this.#access);
  }

  #send(
    url: URL,
    { from, end, ...request }: RangeRequest,
    askedOf?: string,
  ): Promise<HttpResponse> {
    // Storage that compresses would answer with ranges of the compressed bytes.
    const headers = { range: `bytes=${from}-${end - 1}`, 'accept-encoding': 'identity' };
    const access = this.#access;
    return this.#exchange.send({ access, method: 'GET', url, headers, askedOf, ...request });
  }
}

async function sizeOf(endpoint: RangeEndpoint, limits: RegistryLimits): Promise<number> {
  const doing = `Cannot find the size of ${endpoint.label}`;
  return await retrying(fetchPolicy(limits), doing, undefined, async (signal) => {
    const response = await endpoint.get({ from: 0, end: 1, doing, signal });
    const sizeBytes =
      contentRange(response)?.sizeBytes ??
      (response.status === 206 ? undefined : response.contentLength);
    if (response.status === 206) await response.discard();
    else response.cutOff();
    if (sizeBytes !== undefined) return sizeBytes;
    throw new ObdError(ErrorCodes.Registry, `${doing}: ${response.url.host} does not say`);
  });
}

function fetchPolicy({ backoffMs, fetchDeadlineMs }: RegistryLimits) {
  return { attemptsMax: FETCH_ATTEMPTS_MAX, backoffMs, deadlineMs: fetchDeadlineMs };
}
