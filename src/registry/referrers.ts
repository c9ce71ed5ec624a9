/**
 * Lists the artifacts of a subject (OCI distribution spec 1.1, "Listing Referrers").
 *
 * The API and the fall-back tag are requested at the same time: a registry without the API answers 404 first, and a
 * second round trip would delay a start. The API's list counts; without one, that of the tag. A registry may ignore
 * the filter, so the list is filtered here too.
 *
 * A list is advice. There is one attempt at each request, and a list is cut at PAGES_MAX and REFERRERS_MAX.
 */
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { OCI_INDEX } from '../oci/media-types.js';
import { fallbackTagOf, parseReferrerList, type ReferrerDescriptor } from '../oci/referrer.js';
import type { Access } from './access.js';
import type { HttpResponse } from './http-client.js';
import { readManifest } from './manifest-answer.js';
import type { RegistryExchange } from './registry-exchange.js';

/** Limit for a list by the API. */
const PAGES_MAX = 4;
/** One subject has a few artifacts of one type: one for each way to start it. */
const REFERRERS_MAX = 64;
/** The answers of a registry without the API, or without this repository. */
const NO_API: readonly number[] = [400, 404, 405, 501];
const NO_TAG: readonly number[] = [404];
/** The request for the tag is aborted so long after the API's answer: an abort costs a connection. */
const TAG_MS_MAX = 1_000;
/** A Link header is a path and a cursor. */
const LINK_LENGTH_MAX = 4096;

export interface ReferrersQuery {
  readonly access: Access;
  /** Of the subject. */
  readonly digest: string;
  readonly artifactType: string;
  readonly doing: string;
}

/** The referrers of one answer, and where the next page is. */
interface Page {
  readonly referrers: readonly ReferrerDescriptor[];
  readonly next: URL | undefined;
}

/**
 * @param signal - Ends soon after the call: listeners are left on it.
 * @throws {ObdError} `Unauthorized`, `Unavailable`; `Registry` for an answer that is no list.
 */
export async function findReferrers(
  exchange: RegistryExchange,
  query: ReferrersQuery,
  signal: AbortSignal,
): Promise<readonly ReferrerDescriptor[]> {
  const late = new AbortController();
  const byTag = pageByTag(exchange, query, AbortSignal.any([signal, late.signal]));
  // Its error counts only if it is awaited below.
  byTag.catch(() => {});
  let refusal: unknown;
  try {
    const found = await listByApi(exchange, query, signal);
    if (found !== undefined) {
      const timer = setTimeout(() => late.abort(), TAG_MS_MAX);
      void byTag.catch(() => {}).finally(() => clearTimeout(timer));
      return found;
    }
  } catch (error) {
    if (signal.aborted) throw error;
    refusal = error;
  }
  try {
    const page = await byTag;
    if (page !== undefined) return chosen(page.referrers, query);
  } catch (error) {
    throw signal.aborted ? error : (refusal ?? error);
  }
  if (refusal !== undefined) throw refusal;
  return [];
}

async function pageByTag(
  exchange: RegistryExchange,
  query: ReferrersQuery,
  signal: AbortSignal,
): Promise<Page | undefined> {
  const url = exchange.urlOf(query.access, `manifests/${fallbackTagOf(query.digest)}`);
  return await getPage(exchange, query, url, NO_TAG, signal);
}

/** Returns undefined if the registry has no such API. */
async function listByApi(
  exchange: RegistryExchange,
  query: ReferrersQuery,
  signal: AbortSignal,
): Promise<readonly ReferrerDescriptor[] | undefined> {
  const first = exchange.urlOf(query.access, `referrers/${query.digest}`);
  first.searchParams.set('artifactType', query.artifactType);
  let page = await getPage(exchange, query, first, NO_API, signal);
  if (page === undefined) return undefined;
  let found = chosen(page.referrers, query);
  for (let pages = 1; pages < PAGES_MAX && found.length < REFERRERS_MAX; pages++) {
    if (page.next === undefined) break;
    page = await getPage(exchange, query, page.next, NO_API, signal);
    if (page === undefined) break;
    found = chosen([...found, ...page.referrers], query);
  }
  return found;
}

/** The referrers of the type, each once, at most REFERRERS_MAX. */
function chosen(
  referrers: readonly ReferrerDescriptor[],
  { artifactType }: ReferrersQuery,
): readonly ReferrerDescriptor[] {
  const byDigest = new Map<string, ReferrerDescriptor>();
  for (const each of referrers) {
    if (each.artifactType === artifactType) byDigest.set(each.digest, each);
  }
  return [...byDigest.values()].slice(0, REFERRERS_MAX);
}

/** Returns undefined for the statuses in `missing`. */
async function getPage(
  exchange: RegistryExchange,
  { access, doing }: ReferrersQuery,
  url: URL,
  missing: readonly number[],
  signal: AbortSignal,
): Promise<Page | undefined> {
  const headers = { accept: OCI_INDEX };
  const request = { access, method: 'GET', url, headers, signal, doing } as const;
  const passedBy = new Set<string>();
  for (;;) {
    const response = await exchange.send(request);
    if (missing.includes(response.status)) {
      await response.discard();
      return undefined;
    }
    if (response.status !== 200) throw await exchange.errorOf(response, access);
    try {
      const referrers = await referrersOf(response);
      return { referrers, next: nextPage(exchange, access, response) };
    } catch (error) {
      if (signal.aborted || !(error instanceof ObdError)) throw error;
      if (!exchange.passBy(access, url, response.askedOf, error, passedBy)) throw error;
    }
  }
}

/** @throws {ObdError} `Registry` for an answer that is no list; as HttpResponse.readAll(). */
async function referrersOf(response: HttpResponse): Promise<readonly ReferrerDescriptor[]> {
  try {
    const label = 'the list';
    const { bytes, mediaType } = await readManifest(response, undefined, label);
    const { listed } = parseReferrerList(bytes, mediaType, label);
    return listed.flatMap(({ referrer }) => referrer ?? []);
  } catch (error) {
    const isJunk = hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.Unsupported);
    if (!isJunk) throw error;
    const problem = `${response.url.host} sent no list of referrers`;
    const message = `${response.doing}: ${problem} (${error.message})`;
    throw new ObdError(ErrorCodes.Registry, message, {}, error);
  }
}

/** The target of a Link header with `rel="next"` at the address that sent it; undefined for any other. */
function nextPage(
  exchange: RegistryExchange,
  access: Access,
  response: HttpResponse,
): URL | undefined {
  const header = response.header('link') ?? '';
  if (header.length > LINK_LENGTH_MAX) return undefined;
  const [, target] = /<([^<>]*)>\s*;[^,<]*\brel="?next\b/i.exec(header) ?? [];
  if (target === undefined || !URL.canParse(target, response.url.href)) return undefined;
  const next = new URL(target, response.url);
  // A link elsewhere would send requests, and maybe a login, where the list's author wants them.
  return next.origin === response.url.origin && exchange.isHome(access, next) ? next : undefined;
}
