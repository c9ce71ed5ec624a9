/**
 * Converts an unexpected answer, its HTTP status and the registry's error document (OCI distribution spec 1.1, "Error
 * Codes"), to an ObdError.
 *
 * The message quotes the registry's words, as they often hold the only useful hint. They are untrusted, so they are
 * first cut and made printable.
 */
import { type ErrorCode, ErrorCodes, ObdError } from '../errors.js';
import type { HttpResponse } from './http-client.js';
import { quotable } from './quotable.js';
import { retryAfterMs } from './retry.js';

/** Error documents are a few hundred bytes; some gateways send a page of HTML. */
const ERROR_BYTES_MAX = 16 << 10;
/** A slow body is cut off, and only the received part used; the status explains more. */
const ERROR_MS_MAX = 5_000;

/** Our remedy for each status, added to the registry's words. */
export type Remedies = Readonly<Record<number, string>>;

/** Reads the answer's body and returns the error to throw. */
export async function responseError(
  response: HttpResponse,
  remedies: Remedies = {},
): Promise<ObdError> {
  const { status, doing, url } = response;
  const said = await registrySays(response);
  const remedy = remedies[status];
  const message = `${doing}: ${url.host} answered ${status}${said}${remedy === undefined ? '' : `; ${remedy}`}`;
  const wait = retryAfterMs(response.header('retry-after'), Date.now());
  return new ObdError(codeOf(status), message, {
    status,
    ...(wait === undefined ? {} : { retryAfterMs: wait }),
  });
}

function codeOf(status: number): ErrorCode {
  if (status === 401 || status === 403 || status === 407) return ErrorCodes.Unauthorized;
  if (status === 404 || status === 410) return ErrorCodes.NotFound;
  if (status === 507) return ErrorCodes.NoSpace;
  // 408, 425 and 429 ask explicitly for a later retry.
  if (status === 408 || status === 425 || status === 429) return ErrorCodes.Unavailable;
  // 501 and 505 are permanent.
  if (status >= 500 && status !== 501 && status !== 505) return ErrorCodes.Unavailable;
  return ErrorCodes.Registry;
}

async function registrySays(response: HttpResponse): Promise<string> {
  let text: string;
  const timer = setTimeout(() => response.cutOff(), ERROR_MS_MAX);
  try {
    text = Buffer.from(await response.readAll(ERROR_BYTES_MAX)).toString('utf8');
  } catch {
    return '';
  } finally {
    clearTimeout(timer);
  }
  const first = firstError(text);
  return first === undefined ? '' : ` (${quotable(first)})`;
}

/** `code: message` of the first of `{"errors": [...]}`. */
function firstError(text: string): string | undefined {
  try {
    const { errors } = JSON.parse(text) as { errors?: { code?: unknown; message?: unknown }[] };
    const { code, message } = errors?.[0] ?? {};
    const parts = [code, message].filter((part) => typeof part === 'string' && part !== '');
    return parts.length === 0 ? undefined : parts.join(': ');
  } catch {
    return undefined;
  }
}
