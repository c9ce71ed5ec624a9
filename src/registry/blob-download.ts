/**
 * Reads a whole blob as a stream. After a broken connection, a range request continues at the break. Each piece that
 * arrives restores the attempts, so a large blob over a bad line succeeds as long as it makes progress.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Descriptor } from '../oci/manifest.js';
import type { Access } from './access.js';
import type { HttpResponse } from './http-client.js';
import { contentRange, isContent } from './range-answer.js';
import type { RegistryExchange } from './registry-exchange.js';
import type { RegistryLimits } from './registry-limits.js';
import { RetryBudget } from './retry.js';

/**
 * The stream is not checked against the digest: verifiedBlob() does that.
 *
 * @throws {ObdError} `Unavailable`, `Unauthorized`, `NotFound`, `Registry`; the signal's reason.
 */
export async function* downloadBlob(
  exchange: RegistryExchange,
  { attemptsMax, backoffMs }: RegistryLimits,
  access: Access,
  { digest, size }: Descriptor,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const doing = `Cannot read ${digest} of ${access.host}/${access.repository}`;
  const url = exchange.urlOf(access, `blobs/${digest}`);
  // No limit for the whole: the limits on idle connections bound each piece.
  const policy = { attemptsMax, backoffMs, deadlineMs: undefined };
  let received = 0;
  for (let budget = new RetryBudget(policy); ; ) {
    try {
      const range = received === 0 ? {} : { range: `bytes=${received}-` };
      const headers = { 'accept-encoding': 'identity', ...range };
      const request = { access, method: 'GET', url, headers, signal, doing } as const;
      const response = await exchange.send(request);
      let skip = await bytesToSkip(exchange, access, response, received);
      for await (const piece of response.pieces()) {
        const fresh = piece.subarray(Math.min(skip, piece.length));
        skip -= piece.length - fresh.length;
        if (fresh.length === 0) continue;
        received += fresh.length;
        budget = new RetryBudget(policy);
        yield fresh;
      }
      // The reader refuses surplus bytes. Missing bytes may still follow in the next attempt.
      if (received >= size) return;
      const problem = `${response.url.host} ended it after ${received} of ${size} bytes`;
      throw new ObdError(ErrorCodes.Unavailable, `${doing}: ${problem}`);
    } catch (error) {
      await budget.spend(error, signal);
    }
  }
}

/** The bytes of the answer that were received before. */
async function bytesToSkip(
  exchange: RegistryExchange,
  access: Access,
  response: HttpResponse,
  received: number,
): Promise<number> {
  if (!isContent(response)) throw await exchange.errorOf(response, access);
  const first = contentRange(response)?.first ?? (response.status === 206 ? undefined : 0);
  if (first !== undefined && first <= received) return received - first;
  response.cutOff();
  const problem = `${response.url.host} sent another part than the one asked for`;
  throw new ObdError(ErrorCodes.Registry, `${response.doing}: ${problem}`);
}
