/**
 * Publishes and deletes artifacts of a manifest (OCI distribution spec 1.1, "Pushing Manifests with Subject").
 *
 * Order of writes: blobs, the artifact's manifest, its entry in the list of the subject, and the deletion of earlier
 * artifacts last. So a list never names what is not there, and a failure leaves the earlier artifacts. A registry with
 * the referrers API keeps the list itself; otherwise it is at the fall-back tag (fallback-list.ts).
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { buildArtifact, EMPTY_CONFIG, EMPTY_CONFIG_BYTES } from '../oci/artifact.js';
import type { Descriptor } from '../oci/manifest.js';
import { OCI_MANIFEST } from '../oci/media-types.js';
import type { ReferrerDescriptor } from '../oci/referrer.js';
import { changeFallbackList, isBadRequest, pause, WRITES_MAX } from './fallback-list.js';
import type { RegistryClient } from './registry-client.js';

/** Pause after a refused write, with jitter up to twice as long. */
const REFUSED_MS = 100;

interface ArtifactBlob {
  readonly descriptor: Descriptor;
  /** The path of a file, or the bytes. */
  readonly content: string | Uint8Array;
}

export interface NewArtifact {
  readonly artifactType: string;
  /** At most ANNOTATION_BYTES_MAX. The list of the subject repeats them. */
  readonly annotations: Readonly<Record<string, string>>;
  /** The layers of the artifact, in order. */
  readonly blobs: readonly ArtifactBlob[];
  /** Called with each artifact of the same type and subject; true removes it. */
  readonly replaces?: ((earlier: ReferrerDescriptor) => boolean) | undefined;
}

/**
 * Stores an artifact and lists it. Idempotent: equal arguments give the same artifact.
 *
 * Only artifacts that are listed before the new one is stored are replaced, so that two publishers cannot remove each
 * other's. Failures to delete them are ignored: the login may not permit it, and the next publisher tries again.
 *
 * @param subject - The manifest that it belongs to, in the same repository.
 * @returns Its entry in the list.
 * @throws {ObdError} `Busy` if other writers of the list undid the change each time; `InvalidArgument` for annotations that are
 *   too long; errors of putBlob(), putManifest() and changeFallbackList().
 */
export async function publishArtifact(
  client: RegistryClient,
  host: string,
  repository: string,
  subject: Descriptor,
  { artifactType, annotations, blobs, replaces }: NewArtifact,
  signal?: AbortSignal,
): Promise<ReferrerDescriptor> {
  const layers = blobs.map(({ descriptor }) => descriptor);
  const { bytes, referrer } = buildArtifact({ artifactType, subject, layers, annotations });
  const { digest } = referrer;
  const earlier =
    replaces === undefined
      ? []
      : await client.referrers(host, repository, subject.digest, artifactType, signal, 'push');
  const replaced = earlier.filter((each) => each.digest !== digest && replaces?.(each) === true);
  const config = { descriptor: EMPTY_CONFIG, content: EMPTY_CONFIG_BYTES };
  for (const { descriptor, content } of [config, ...blobs]) {
    if (await client.hasBlob(host, repository, descriptor.digest, signal)) continue;
    const blob = { descriptor, content, onBytes: undefined };
    await client.putBlob(host, repository, blob, signal);
  }
  const manifest = { bytes, mediaType: OCI_MANIFEST };
  const put = await retryingRefusals(signal, () =>
    client.putManifest(host, repository, digest, manifest, signal),
  );
  const drop = new Set(replaced.map((each) => each.digest));
  if (!put.listsReferrers) {
    const of = { host, repository, digest: subject.digest };
    // The manifests of dropped entries stay: a writer that adds its entry again would otherwise name a missing one.
    await changeFallbackList(client, of, { add: referrer, drop }, signal);
    return referrer;
  }
  for (const each of drop) {
    await client.deleteManifest(host, repository, each, signal).catch((error: unknown) => {
      signal?.throwIfAborted();
      if (!(error instanceof ObdError)) throw error;
    });
  }
  return referrer;
}

/**
 * Repeats a write that the registry answers with 400. distribution on a file system does so while another publisher
 * rewrites its link to a blob that both have, such as the empty config.
 */
async function retryingRefusals<T>(
  signal: AbortSignal | undefined,
  write: () => Promise<T>,
): Promise<T> {
  for (let writes = 1; ; writes++) {
    try {
      return await write();
    } catch (error) {
      if (writes === WRITES_MAX || !isBadRequest(error)) throw error;
    }
    await pause(REFUSED_MS * (1 + Math.random()), signal);
  }
}

/**
 * Removes an artifact from the list of its subject, and its manifest. Does nothing if there is none.
 *
 * @param subject - The manifest that it belongs to.
 * @param digest - Of the artifact's manifest.
 * @throws {ObdError} `Unsupported` if the registry permits no deletion, and keeps the list itself; errors of
 *   changeFallbackList() and deleteManifest().
 */
export async function deleteArtifact(
  client: RegistryClient,
  host: string,
  repository: string,
  subject: Descriptor,
  digest: string,
  signal?: AbortSignal,
): Promise<void> {
  const of = { host, repository, digest: subject.digest };
  const change = { add: undefined, drop: new Set([digest]) };
  const isUnlisted = await changeFallbackList(client, of, change, signal);
  const deletion = await client.deleteManifest(host, repository, digest, signal);
  if (deletion !== 'unsupported' || isUnlisted) return;
  throw new ObdError(
    ErrorCodes.Unsupported,
    `Cannot delete the artifact ${digest} of ${host}/${repository}: the registry permits no deletion; enable it there`,
    { digest },
  );
}
