/**
 * Reads a whole blob as a stream. After a broken connection, a range request continues at the break. Each piece that
 * arrives restores the attempts, so a large blob over a bad line succeeds as long as it makes progress.
 *
 * An address that answers with another size or a page of HTML is passed by for the next one. So is one whose bytes have
 * another digest, if the blob is small enough to be checked before its first byte is passed on: a config, for instance.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import type { Descriptor } from '../oci/manifest.js';
import type { Access } from './access.js';
import type { HttpResponse } from './http-client.js';
import { contentRange, isContent, isHtml } from './range-answer.js';
import type { RegistryExchange } from './registry-exchange.js';
import type { RegistryLimits } from './registry-limits.js';
import { RetryBudget } from './retry.js';
import { mismatch } from './verified-blob.js';

/** More than any image config in use. */
const CHECKED_BYTES_MAX = 1 << 20;

/**
 * The stream of a large blob is not checked against the digest: verifiedBlob() does that.
 *
 * @throws {ObdError} `Unavailable`, `Unauthorized`, `NotFound`, `Registry`; the signal's reason.
 */
export async function* downloadBlob(
  exchange: RegistryExchange,
  { attemptsMax, backoffMs }: RegistryLimits,
  access: Access,
  descriptor: Descriptor,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { digest, size } = descriptor;
  const label = `${digest} of ${access.host}/${access.repository}`;
  const doing = `Cannot read ${label}`;
  const checked: Uint8Array[] | undefined = size <= CHECKED_BYTES_MAX ? [] : undefined;
  const url = exchange.urlOf(access, `blobs/${digest}`);
  // No limit for the whole: the limits on idle connections bound each piece.
  const policy = { attemptsMax, backoffMs, deadlineMs: undefined };
  const passedBy = new Set<string>();
  let received = 0;
  for (let budget = new RetryBudget(policy); ; ) {
    try {
      const range = received === 0 ? {} : { range: `bytes=${received}-` };
      const headers = { 'accept-encoding': 'identity', ...range };
      const request = { access, method: 'GET', url, headers, signal, doing } as const;
      const response = await exchange.send(request);
      let skip = await bytesToSkip(exchange, access, response, received);
      const wrong = wrongAnswer(response, size, label);
      const passes = (error: ObdError) =>
        exchange.passBy(access, url, response.askedOf, error, passedBy);
      if (wrong !== undefined && passes(wrong)) {
        response.cutOff();
        continue;
      }
      for await (const piece of response.pieces()) {
        const fresh = piece.subarray(Math.min(skip, piece.length));
        skip -= piece.length - fresh.length;
        if (fresh.length === 0) continue;
        received += fresh.length;
        budget = new RetryBudget(policy);
        if (checked === undefined) yield fresh;
        else checked.push(fresh);
        if (checked !== undefined && received > size) break;
      }
      // The reader refuses surplus bytes. Missing bytes may still follow in the next attempt.
      if (received >= size) {
        if (checked === undefined) return;
        const bytes = Buffer.concat(checked.splice(0));
        const found = sha256Of(bytes);
        const error = mismatch(label, descriptor, `its digest is ${found}, not ${digest}`);
        if (found !== digest && passes(error)) {
          received = 0;
          continue;
        }
        // Without another address, the reader gets the wrong bytes, and refuses them.
        yield bytes;
        return;
      }
      const problem = `${response.url.host} ended it after ${received} of ${size} bytes`;
      throw new ObdError(ErrorCodes.Unavailable, `${doing}: ${problem}`);
    } catch (error) {
      await budget.spend(error, signal);
    }
  }
}

/** Why an answer is not the blob, as far as its header says; undefined if it may be. */
function wrongAnswer(response: HttpResponse, size: number, label: string): ObdError | undefined {
  const { contentLength, url } = response;
  const isPart = contentRange(response) !== undefined;
  const isOther = isPart || contentLength === undefined ? isHtml(response) : contentLength !== size;
  if (!isOther) return undefined;
  const what = contentLength === undefined || isPart ? 'a page of HTML' : `${contentLength} bytes`;
  const problem = `${url.host} sent ${what} in place of its ${size} bytes`;
  return new ObdError(ErrorCodes.Registry, `Cannot read ${label}: ${problem}`);
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
