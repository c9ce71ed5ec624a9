/**
 * Changes the list of artifacts at a registry without the referrers API: the index at the tag `sha256-<hex>` (OCI
 * distribution spec 1.1, "Referrers Tag Schema").
 *
 * A registry has no compare-and-swap, so two writers can read the same list, and the second to write drops the entry
 * of the first. Each writer therefore reads the list again once the others have had time to write, and adds its entry
 * to the new list if it is gone. A writer repeats all entries of the list that it read, also those of other programs.
 *
 * The list is read from the registry itself, because a mirror may be behind it.
 *
 * Some registries refuse an index that names a missing manifest, and the garbage collection of distribution deletes
 * manifests that only an index names. After a refusal, entries without a manifest are dropped.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { IMAGE_MANIFEST_TYPES, INDEX_TYPES } from '../oci/media-types.js';
import {
  encodeReferrerList,
  fallbackTagOf,
  type ListedReferrer,
  NO_REFERRERS,
  parseReferrerList,
  type ReferrerDescriptor,
  type ReferrerList,
} from '../oci/referrer.js';
import type { RegistryClient } from './registry-client.js';

/** Of one change; then an error says who was in the way. */
export const WRITES_MAX = 3;
const KNOWN_TYPES = [...IMAGE_MANIFEST_TYPES, ...INDEX_TYPES];
/** Time from a write to the check of it, at least; doubled for each further write, with jitter up to twice as long. */
const SETTLE_MS_MIN = 250;
/** The same, in multiples of the time that our own read and write took: that of the other writers is similar. */
const SETTLE_WINDOWS = 4;
const SETTLE_MS_MAX = 10_000;

export interface Subject {
  readonly host: string;
  readonly repository: string;
  /** Of its manifest. */
  readonly digest: string;
}

export interface ListChange {
  readonly add: ReferrerDescriptor | undefined;
  /** The digests of entries to drop. */
  readonly drop: ReadonlySet<string>;
}

/**
 * Adds and drops entries. The list stays if it becomes empty: deleting its tag could drop what another writer adds.
 *
 * @returns Whether the list had to change.
 * @throws {ObdError} `Busy` if other writers undid the change each time; `Corrupt` or `Unsupported` if the tag names
 *   something else; `Unauthorized`, `Unavailable`, `Registry`.
 */
export async function changeFallbackList(
  client: RegistryClient,
  subject: Subject,
  change: ListChange,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const { host, repository, digest } = subject;
  const tag = fallbackTagOf(digest);
  const label = `the list of artifacts at ${host}/${repository}:${tag}`;
  let refusal: unknown;
  for (let writes = 0; writes < WRITES_MAX; writes++) {
    const readMs = performance.now();
    const list = await readList(client, subject, label, signal);
    if (isDone(list, change, writes)) return writes > 0;
    const listed =
      refusal === undefined ? list.listed : await withoutMissing(client, subject, list, signal);
    const bytes = encodeReferrerList({ ...list, listed: changed(listed, change) }, label);
    const manifest = { bytes, mediaType: list.mediaType };
    refusal = await client.putManifest(host, repository, tag, manifest, signal).then(
      () => undefined,
      (error: unknown) => (isBadRequest(error) ? error : Promise.reject(error)),
    );
    const windowMs = SETTLE_WINDOWS * (performance.now() - readMs);
    const settleMs = Math.min(Math.max(windowMs, SETTLE_MS_MIN) * 2 ** writes, SETTLE_MS_MAX);
    await pause(settleMs * (1 + Math.random()), signal);
  }
  if (isDone(await readList(client, subject, label, signal), change, WRITES_MAX)) return true;
  if (refusal !== undefined) throw refusal;
  const what = change.add === undefined ? [...change.drop].join(', ') : change.add.digest;
  throw new ObdError(
    ErrorCodes.Busy,
    `Cannot change ${label}: other writers undid the change of ${what} ${WRITES_MAX} times; try again later`,
    { digest: change.add?.digest ?? digest },
  );
}

async function readList(
  client: RegistryClient,
  { host, repository, digest }: Subject,
  label: string,
  signal: AbortSignal | undefined,
): Promise<ReferrerList> {
  try {
    const tag = fallbackTagOf(digest);
    const { bytes, mediaType } = await client.getManifest(host, repository, tag, signal, 'push');
    return parseReferrerList(bytes, mediaType, label);
  } catch (error) {
    if (hasCode(error, ErrorCodes.NotFound)) return NO_REFERRERS;
    throw error;
  }
}

/** After a write, an entry to drop that is back belongs to a writer that added it again: it may stay next to ours. */
function isDone({ listed }: ReferrerList, { add, drop }: ListChange, writes: number): boolean {
  const digests = new Set(listed.map(({ referrer }) => referrer?.digest));
  const isAdded = add === undefined || digests.has(add.digest);
  const isDropped = [...drop].every((each) => !digests.has(each));
  return isAdded && (isDropped || (writes > 0 && add !== undefined));
}

/** Checks only what getManifest() asks for; a registry may answer 404 for another media type. */
async function withoutMissing(
  client: RegistryClient,
  { host, repository }: Subject,
  { listed }: ReferrerList,
  signal: AbortSignal | undefined,
): Promise<readonly ListedReferrer[]> {
  const kept: ListedReferrer[] = [];
  for (const each of listed) {
    const { referrer } = each;
    const isKnown = referrer !== undefined && KNOWN_TYPES.includes(referrer.mediaType);
    if (!isKnown || (await isThere(referrer.digest))) kept.push(each);
  }
  return kept;

  async function isThere(digest: string): Promise<boolean> {
    try {
      await client.getManifest(host, repository, digest, signal, 'push');
      return true;
    } catch (error) {
      if (hasCode(error, ErrorCodes.NotFound)) return false;
      throw error;
    }
  }
}

function changed(
  listed: readonly ListedReferrer[],
  { add, drop }: ListChange,
): readonly ListedReferrer[] {
  const kept = listed.filter(({ referrer }) => {
    return (
      referrer === undefined || !(drop.has(referrer.digest) || referrer.digest === add?.digest)
    );
  });
  const added = add === undefined ? [] : [{ entry: add, referrer: add }];
  return [...kept, ...added];
}

/** The registry did not accept a document that is right. */
export function isBadRequest(error: unknown): boolean {
  return hasCode(error, ErrorCodes.Registry) && error.details.status === 400;
}

export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {});
  signal?.throwIfAborted();
}
