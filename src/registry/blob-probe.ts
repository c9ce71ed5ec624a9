/**
 * Checks whether a registry serves a blob to us, by a GET of its first byte.
 *
 * A pull waits for the answer. So an address that refuses connections, does not resolve or does not answer in time is
 * asked once. An error response, or a connection that breaks, is retried once.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { ErrorCodes, hasCode, ObdError, systemCode } from '../errors.js';
import type { Access } from './access.js';
import type { HttpResponse } from './http-client.js';
import { contentRange } from './range-answer.js';
import type { RegistryExchange } from './registry-exchange.js';

/** Includes the first attempt. */
const PROBE_ATTEMPTS_MAX = 2;
const PAUSE_MS = 200;
/** Errors of connections that were made and then broke. */
const BROKEN: readonly (string | undefined)[] = ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'];

interface ProbedBlob {
  readonly digest: string;
  /** What its image says; undefined if that is unknown. */
  readonly sizeBytes: number | undefined;
}

/**
 * @returns The blob's size in bytes; undefined if the registry does not say.
 * @throws {ObdError} `NotFound`, `Unauthorized`, `Unavailable`, `Registry`; the signal's reason.
 */
export async function probeBlob(
  exchange: RegistryExchange,
  access: Access,
  blob: ProbedBlob,
  signal: AbortSignal,
): Promise<number | undefined> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask(exchange, access, blob, signal);
    } catch (error) {
      if (attempt >= PROBE_ATTEMPTS_MAX || signal.aborted || !mayPass(error)) throw error;
    }
    await pause(PAUSE_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** Asks further addresses while one has the blob in another size than was promised. */
async function ask(
  exchange: RegistryExchange,
  access: Access,
  { digest, sizeBytes: promised }: ProbedBlob,
  signal: AbortSignal,
): Promise<number | undefined> {
  const url = exchange.urlOf(access, `blobs/${digest}`);
  const doing = `Cannot find ${digest} at ${access.host}/${access.repository}`;
  const headers = { range: 'bytes=0-0', 'accept-encoding': 'identity' };
  for (;;) {
    const response = await exchange.send({ access, method: 'GET', url, headers, signal, doing });
    const sizeBytes = await sizeIn(exchange, access, response);
    if (promised === undefined || sizeBytes === undefined || sizeBytes === promised) {
      return sizeBytes;
    }
    const problem = `${response.url.host} has ${sizeBytes} bytes of it, and ${promised} were promised`;
    const error = new ObdError(ErrorCodes.Registry, `${doing}: ${problem}`, { digest });
    if (!exchange.passBy(access, url, response.askedOf, error)) return sizeBytes;
  }
}

async function sizeIn(
  exchange: RegistryExchange,
  access: Access,
  response: HttpResponse,
): Promise<number | undefined> {
  if (response.status === 206) {
    await response.discard();
    return contentRange(response)?.sizeBytes;
  }
  if (response.status !== 200) throw await exchange.errorOf(response, access);
  response.cutOff();
  return response.contentLength;
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
