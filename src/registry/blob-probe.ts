/**
 * Checks whether a registry serves a blob to us, by a GET of its first byte, or of a part whose digest the image names.
 *
 * A pull waits for the answer. So an address that refuses connections, does not resolve or does not answer in time is
 * asked once. An error response, or a connection that breaks, is retried once.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { ErrorCodes, hasCode, ObdError, systemCode } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import type { Access } from './access.js';
import type { HttpResponse } from './http-client.js';
import { contentRange } from './range-answer.js';
import type { RegistryExchange } from './registry-exchange.js';

/** Includes the first attempt. */
const PROBE_ATTEMPTS_MAX = 2;
const PAUSE_MS = 200;
/** Errors of connections that were made and then broke. */
const BROKEN: readonly (string | undefined)[] = ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'];

/** Bytes of a blob whose digest its image names. */
interface HashedPart {
  readonly offset: number;
  readonly length: number;
  /** `sha256:...` */
  readonly digest: string;
}

/** What an image says of a blob, as far as that is known. */
export interface BlobPromise {
  readonly sizeBytes?: number | undefined;
  readonly part?: HashedPart | undefined;
}

/** A registry's answer about a blob. A fact that the answer lacks is undefined. */
export interface BlobFacts {
  readonly sizeBytes: number | undefined;
  /** The part that was asked for, with the digest of the bytes that it sent. */
  readonly part: HashedPart | undefined;
}

interface ExpectedBlob extends BlobPromise {
  readonly digest: string;
}

/** How a registry's blob is another one than its image promises; undefined if it is not known to be. */
export function brokenPromise(
  { sizeBytes, part: found }: BlobFacts,
  { sizeBytes: promised, part }: BlobPromise,
): string | undefined {
  if (promised !== undefined && sizeBytes !== undefined && sizeBytes !== promised) {
    return `it has ${sizeBytes} bytes, and ${promised} were promised`;
  }
  if (part === undefined || found === undefined || found.digest === part.digest) return undefined;
  if (found.offset !== part.offset || found.length !== part.length) return undefined;
  return `its ${part.length} bytes at ${part.offset} have the digest ${found.digest}, and ${part.digest} was promised`;
}

/**
 * @throws {ObdError} `NotFound`, `Unauthorized`, `Unavailable`, `Registry`; the signal's reason.
 */
export async function probeBlob(
  exchange: RegistryExchange,
  access: Access,
  blob: ExpectedBlob,
  signal: AbortSignal,
): Promise<BlobFacts> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask(exchange, access, blob, signal);
    } catch (error) {
      if (attempt >= PROBE_ATTEMPTS_MAX || signal.aborted || !mayPass(error)) throw error;
    }
    await pause(PAUSE_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** Asks further addresses while one has another blob than was promised. */
async function ask(
  exchange: RegistryExchange,
  access: Access,
  { digest, ...promise }: ExpectedBlob,
  signal: AbortSignal,
): Promise<BlobFacts> {
  const { part = { offset: 0, length: 1 } } = promise;
  const url = exchange.urlOf(access, `blobs/${digest}`);
  const doing = `Cannot find ${digest} at ${access.host}/${access.repository}`;
  const headers = {
    range: `bytes=${part.offset}-${endOf(part) - 1}`,
    'accept-encoding': 'identity',
  };
  const passedBy = new Set<string>();
  for (;;) {
    const response = await exchange.send({ access, method: 'GET', url, headers, signal, doing });
    const found = await factsIn(exchange, access, response, promise.part);
    const problem = brokenPromise(found, promise);
    if (problem === undefined) return found;
    const message = `${doing}: ${response.url.host} has another blob: ${problem}`;
    const error = new ObdError(ErrorCodes.Registry, message, { digest });
    if (!exchange.passBy(access, url, response.askedOf, error, passedBy)) return found;
  }
}

async function factsIn(
  exchange: RegistryExchange,
  access: Access,
  response: HttpResponse,
  part: HashedPart | undefined,
): Promise<BlobFacts> {
  if (response.status === 206) {
    const range = contentRange(response);
    const sizeBytes = range?.sizeBytes;
    if (part !== undefined && range?.first === part.offset && range.last === endOf(part) - 1) {
      const digest = sha256Of(await response.readAll(part.length));
      return { sizeBytes, part: { ...part, digest } };
    }
    await response.discard();
    return { sizeBytes, part: undefined };
  }
  if (response.status === 416 && part !== undefined) {
    // The blob ends before the part. An error would count against the whole repository.
    await response.discard();
    return { sizeBytes: undefined, part: { ...part, digest: sha256Of(Buffer.alloc(0)) } };
  }
  if (response.status !== 200) throw await exchange.errorOf(response, access);
  response.cutOff();
  return { sizeBytes: response.contentLength, part: undefined };
}

function endOf({ offset, length }: Pick<HashedPart, 'offset' | 'length'>): number {
  return offset + length;
}

function mayPass(error: unknown): boolean {
  if (!hasCode(error, ErrorCodes.Unavailable)) return false;
  return error.details.status !== undefined || BROKEN.includes(causeCode(error));
}

function causeCode(error: ObdError): string | undefined {
  const { cause } = error;
  return cause instanceof Error && hasCode(cause, ErrorCodes.Unavailable)
    ? systemCode(cause.cause)
    : systemCode(cause);
}
