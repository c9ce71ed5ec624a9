/**
 * A blob of a registry, read by ranges: what a virtual disk stands on.
 *
 * Registries answer a blob's GET with a redirect to storage, by a URL that is signed for minutes. It is kept
 * for SIGNED_URL_MS, so that a read costs one request and not two, and dropped when storage refuses it.
 * It is a secret: it appears in no message.
 *
 * Bytes arrive in `target` as they come; an attempt that fails half way is continued, not begun again.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Access } from './authenticator.js';
import type { HttpResponse } from './http-client.js';
import type { RegistryExchange } from './registry-exchange.js';
import { FETCH_ATTEMPTS_MAX, type RegistryLimits } from './registry-limits.js';
import { retrying } from './retry.js';

/** overlaybd's own figure; the shortest lives of signed URLs seen are 10 minutes. */
const SIGNED_URL_MS = 300_000;
/** A server that ignores ranges is read from the start up to here; beyond, a disk on it would be a joke. */
const SKIP_BYTES_MAX = 4 << 20;

const REMEDIES = {
  404: 'the image is not complete there, push it again',
  416: 'the blob is shorter there than its image says, push the image again',
};

/** One blob of one registry, read by ranges. */
export interface BlobRanges {
  /** For messages: "sha256:... of host/repository". */
  readonly label: string;
  /** `host` or `host:port` of the registry that answers for it, whatever storage that redirects to. */
  readonly registry: string;
  /** `sha256:...` */
  readonly digest: string;
  readonly sizeBytes: number;

  /**
   * Fills all of `target` from `offset` with one ranged GET, tried again within the client's
   * `fetchDeadlineMs`. Bytes are the registry's word: only the digest of the whole blob would prove them.
   *
   * @throws {ObdError} `Unavailable`, `Unauthorized`, `NotFound`, `Registry`; the signal's reason.
   */
  readRange(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void>;
}

export interface RangesOfBlob {
  readonly exchange: RegistryExchange;
  readonly limits: RegistryLimits;
  readonly access: Access;
  readonly digest: string;
}

export class RemoteBlobRanges implements BlobRanges {
  readonly label: string;
  readonly registry: string;
  readonly digest: string;
  readonly sizeBytes: number;
  readonly #source: RangeSource;
  readonly #limits: RegistryLimits;

  private constructor(source: RangeSource, { digest, limits }: RangesOfBlob, sizeBytes: number) {
    this.label = source.label;
    this.registry = source.registry;
    this.digest = digest;
    this.sizeBytes = sizeBytes;
    this.#source = source;
    this.#limits = limits;
  }

  /**
   * @param sizeBytes - Undefined asks the registry with a GET of one byte, which storage answers where it
   *   refuses a HEAD by a URL signed for GET; a size that is known costs no request.
   * @throws {ObdError} as readRange().
   */
  static async open(blob: RangesOfBlob, sizeBytes: number | undefined): Promise<RemoteBlobRanges> {
    const source = new RangeSource(blob);
    return new RemoteBlobRanges(source, blob, sizeBytes ?? (await sizeOf(source, blob.limits)));
  }

  async readRange(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    const end = offset + target.length;
    if (!(offset >= 0 && end <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${end}) is outside ${this.label}`);
    }
    if (target.length === 0) return;
    const doing = `Cannot read ${this.label} at ${offset}`;
    let filled = 0;
    await retrying(fetchPolicy(this.#limits), doing, signal, async (attemptSignal) => {
      const from = offset + filled;
      const response = await this.#source.get(from, end, doing, attemptSignal);
      const skip = this.#bytesToSkip(response, from, end);
      for await (const piece of bodyFrom(response, skip)) {
        // Not as soon as all is there: leaving before the end of a body ends its connection.
        if (filled === target.length) break;
        const wanted = piece.subarray(0, target.length - filled);
        target.set(wanted, filled);
        filled += wanted.length;
      }
      if (filled === target.length) return;
      const problem = `${response.url.host} sent ${filled} of ${target.length} bytes`;
      throw new ObdError(ErrorCodes.Unavailable, `${doing}: ${problem}`);
    });
  }

  /** Checks that the answer is for [from, end) of this blob; how much of it comes before `from`. */
  #bytesToSkip(response: HttpResponse, from: number, end: number): number {
    const refuse = (problem: string): ObdError => {
      response.cutOff();
      const message = `${response.doing}: ${response.url.host} ${problem}`;
      return new ObdError(ErrorCodes.Registry, message, { digest: this.digest, offset: from });
    };
    if (response.status === 206) {
      const range = contentRange(response);
      if (range === undefined) throw refuse('answered with a part and did not say which');
      const { first, last, sizeBytes } = range;
      if (first !== from || last !== end - 1) {
        throw refuse(`was asked for bytes ${from} to ${end - 1} and sent ${first} to ${last}`);
      }
      if (sizeBytes === undefined || sizeBytes === this.sizeBytes) return 0;
      throw refuse(`has ${sizeBytes} bytes of it, and ${this.sizeBytes} were promised`);
    }
    const length = response.contentLength;
    if (length !== undefined && length !== this.sizeBytes) {
      throw refuse(`has ${length} bytes of it, and ${this.sizeBytes} were promised`);
    }
    if (from <= SKIP_BYTES_MAX) return from;
    throw refuse('ignores ranges, so that images there cannot be read lazily; pull them instead');
  }
}

/** Where the blob's bytes come from at the moment: the registry, or where it last sent us. */
class RangeSource {
  readonly label: string;
  readonly registry: string;
  readonly #exchange: RegistryExchange;
  readonly #access: Access;
  readonly #home: URL;
  #signed: { readonly url: URL; readonly goodUntilMs: number } | undefined;

  constructor({ exchange, access, digest }: RangesOfBlob) {
    this.label = `${digest} of ${access.host}/${access.repository}`;
    this.#exchange = exchange;
    this.#access = access;
    this.#home = exchange.urlOf(access, `blobs/${digest}`);
    this.registry = this.#home.host;
  }

  /** The answer to a GET of [from, end): 206, or 200 from who ignores ranges. */
  async get(from: number, end: number, doing: string, signal: AbortSignal): Promise<HttpResponse> {
    const signed = this.#signed;
    if (signed !== undefined && signed.goodUntilMs > performance.now()) {
      try {
        const response = await this.#send(signed.url, from, end, doing, signal);
        if (isData(response)) return response;
        await response.discard();
      } catch (error) {
        // Only the next attempt asks the registry: a dead storage host must not cost two timeouts here.
        this.#signed = undefined;
        throw error;
      }
      this.#signed = undefined;
    }
    const response = await this.#send(this.#home, from, end, doing, signal);
    if (!isData(response)) throw await this.#exchange.errorOf(response, this.#access, REMEDIES);
    if (!this.#exchange.isHome(this.#access, response.url)) {
      this.#signed = { url: response.url, goodUntilMs: performance.now() + SIGNED_URL_MS };
    }
    return response;
  }

  #send(
    url: URL,
    from: number,
    end: number,
    doing: string,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    // Storage that compresses what it sends would answer with ranges of something else.
    const headers = { range: `bytes=${from}-${end - 1}`, 'accept-encoding': 'identity' };
    return this.#exchange.send({
      access: this.#access,
      method: 'GET',
      url,
      headers,
      signal,
      doing,
    });
  }
}

async function sizeOf(source: RangeSource, limits: RegistryLimits): Promise<number> {
  const doing = `Cannot find the size of ${source.label}`;
  return await retrying(fetchPolicy(limits), doing, undefined, async (signal) => {
    const response = await source.get(0, 1, doing, signal);
    const sizeBytes =
      response.status === 206 ? contentRange(response)?.sizeBytes : response.contentLength;
    if (response.status === 206) await response.discard();
    else response.cutOff();
    if (sizeBytes !== undefined) return sizeBytes;
    throw new ObdError(ErrorCodes.Registry, `${doing}: ${response.url.host} does not say`);
  });
}

/** The pieces of the body without their first `skip` bytes. */
async function* bodyFrom(response: HttpResponse, skip: number): AsyncGenerator<Uint8Array> {
  let toSkip = skip;
  for await (const piece of response.pieces()) {
    if (toSkip < piece.length) yield piece.subarray(toSkip);
    toSkip -= Math.min(toSkip, piece.length);
  }
}

function fetchPolicy({ backoffMs, fetchDeadlineMs }: RegistryLimits) {
  return { attemptsMax: FETCH_ATTEMPTS_MAX, backoffMs, deadlineMs: fetchDeadlineMs };
}

function isData({ status }: HttpResponse): boolean {
  return status === 200 || status === 206;
}

interface ContentRange {
  readonly first: number;
  readonly last: number;
  /** Of the whole blob; undefined where the server does not say. */
  readonly sizeBytes: number | undefined;
}

function contentRange(response: HttpResponse): ContentRange | undefined {
  const header = response.header('content-range') ?? '';
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15}|\*)$/.exec(header);
  if (match === null) return undefined;
  const [, first, last, size] = match;
  return {
    first: Number(first),
    last: Number(last),
    sizeBytes: size === '*' ? undefined : Number(size),
  };
}
