/**
 * Classifies a registry's answer to a GET of a range: a part that holds the range's first byte, the whole blob, or
 * neither.
 *
 * RFC 9110: units are case-insensitive and may have white space around them (14.1, 14.4); a server may send fewer bytes
 * than asked for, or another range that covers them (15.3.7); an unknown status counts as x00 of its class (15).
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { HttpResponse } from './http-client.js';

/** Maximum of bytes before the range that are read and thrown away; for more, a new request costs less. */
const SKIP_BYTES_MAX = 4 << 20;
/** The statuses from 200 to 299 whose body is not the blob, or that have no body. */
const NOT_CONTENT: readonly number[] = [201, 202, 204, 205, 207, 208];

export type RangeAnswer =
  /** The body begins `skip` bytes before the range, and `length` of its bytes after these may be used. */
  | { readonly kind: 'part'; readonly skip: number; readonly length: number }
  /** The body is all of the blob. `sizeKnown`: its Content-Length agrees. */
  | { readonly kind: 'whole'; readonly sizeKnown: boolean };

/** A blob, and the requested range of it. */
export interface AskedRange {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly from: number;
  readonly end: number;
}

export interface ContentRange {
  readonly first: number;
  readonly last: number;
  /** The blob's size; undefined if the server does not say. */
  readonly sizeBytes: number | undefined;
}

/** Whether the status promises content: 206, 200, or one that counts as 200. */
export function isContent({ status }: HttpResponse): boolean {
  return status >= 200 && status <= 299 && !NOT_CONTENT.includes(status);
}

/** @throws {ObdError} `Registry` for any other answer; the connection is then cut off. */
export function rangeAnswer(response: HttpResponse, asked: AskedRange): RangeAnswer {
  try {
    const range = contentRange(response);
    // Login pages of proxies come with any status; a body of unknown size could be cached as the blob.
    if ((response.status === 206 || response.contentLength === undefined) && isHtml(response)) {
      throw refusal(response, asked, 'sent a page of HTML in place of it');
    }
    // With a right length, the header is wrong, as some storage sends it. Without one the bytes may be compressed.
    if (response.contentLength === undefined && isEncoded(response)) {
      throw refusal(response, asked, 'sent it compressed without being asked');
    }
    if (range !== undefined) return partOf(response, range, asked);
    if (response.status === 206) {
      throw refusal(response, asked, 'answered with a part and did not say which');
    }
    return wholeOf(response, asked);
  } catch (error) {
    response.cutOff();
    throw error;
  }
}

function partOf(response: HttpResponse, range: ContentRange, asked: AskedRange): RangeAnswer {
  const { first, last, sizeBytes = asked.sizeBytes } = range;
  const { from, end } = asked;
  if (sizeBytes !== asked.sizeBytes) throw wrongSize(response, asked, sizeBytes);
  const length = last - first + 1;
  const { contentLength } = response;
  if (contentLength !== undefined && contentLength !== length) {
    const problem = `sent a body of ${contentLength} bytes and called it bytes ${first} to ${last}`;
    throw refusal(response, asked, problem);
  }
  if (first === 0 && length === sizeBytes && end - from < sizeBytes) {
    return { kind: 'whole', sizeKnown: true };
  }
  if (first > from || last < from || last >= sizeBytes || from - first > SKIP_BYTES_MAX) {
    const problem = `was asked for bytes ${from} to ${end - 1} and sent ${first} to ${last}`;
    throw refusal(response, asked, problem);
  }
  return { kind: 'part', skip: from - first, length: Math.min(last + 1, end) - from };
}

function wholeOf(response: HttpResponse, asked: AskedRange): RangeAnswer {
  const { contentLength } = response;
  if (contentLength !== undefined) {
    if (contentLength !== asked.sizeBytes) throw wrongSize(response, asked, contentLength);
    return { kind: 'whole', sizeKnown: true };
  }
  return { kind: 'whole', sizeKnown: false };
}

function wrongSize(response: HttpResponse, asked: AskedRange, sizeBytes: number): ObdError {
  const encoding = response.header('content-encoding');
  const encoded = encoding === undefined ? '' : '; something on the way compresses it';
  const problem = `has ${sizeBytes} bytes of it, and ${asked.sizeBytes} were promised${encoded}`;
  return refusal(response, asked, problem);
}

function refusal(response: HttpResponse, { digest, from }: AskedRange, problem: string): ObdError {
  const message = `${response.doing}: ${response.url.host} ${problem}`;
  return new ObdError(ErrorCodes.Registry, message, { digest, offset: from });
}

export function isHtml(response: HttpResponse): boolean {
  return /^text\/html\b/i.test((response.header('content-type') ?? '').trim());
}

function isEncoded(response: HttpResponse): boolean {
  const encoding = response.header('content-encoding')?.trim().toLowerCase() ?? '';
  return encoding !== '' && encoding !== 'identity';
}

/** Undefined if the header is missing, is no range of bytes, or comes more than once with different values. */
export function contentRange(response: HttpResponse): ContentRange | undefined {
  const values = response.headerValues('content-range').map((value) => value.trim());
  const [header = ''] = values;
  if (values.some((value) => value !== header)) return undefined;
  const match =
    /^[ \t]*bytes[ \t]+([0-9]{1,15})[ \t]*-[ \t]*([0-9]{1,15})[ \t]*\/[ \t]*([0-9]{1,15}|\*)[ \t]*$/i.exec(
      header,
    );
  if (match === null) return undefined;
  const [, first, last, size] = match;
  return {
    first: Number(first),
    last: Number(last),
    sizeBytes: size === '*' ? undefined : Number(size),
  };
}
