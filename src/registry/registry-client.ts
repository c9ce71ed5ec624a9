/**
 * A client of OCI registries (OCI distribution spec 1.1): manifests, blobs whole or by ranges, uploads. One per
 * process: all calls share its connections, tokens and logins.
 *
 * Every call names its host as references do (`docker.io`), is bounded in time and attempts, and throws ObdErrors only;
 * no error contains credentials. Names are checked here, because they become URLs.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { checkDigest, isDigest } from '../oci/digest.js';
import type { Descriptor } from '../oci/manifest.js';
import { IMAGE_MANIFEST_TYPES, INDEX_TYPES, SCHEMA1_TYPES } from '../oci/media-types.js';
import { isHost, isRepository, isTag } from '../oci/reference.js';
import type { ReferrerDescriptor } from '../oci/referrer.js';
import type { Access } from './access.js';
import { downloadBlob } from './blob-download.js';
import { type BlobFacts, type BlobPromise, probeBlob } from './blob-probe.js';
import { RemoteBlobRanges } from './blob-ranges.js';
import { type BlobContent, cancelUpload, type UploadSession, uploadBlob } from './blob-upload.js';
import type { Credentials } from './credentials.js';
import type { HttpResponse } from './http-client.js';
import { type ManifestBytes, readManifest } from './manifest-answer.js';
import { findReferrers } from './referrers.js';
import {
  RegistryExchange,
  type RegistryRequest,
  type ReportWrongAnswer,
} from './registry-exchange.js';
import type { RegistryHosts } from './registry-hosts.js';
import { DEFAULT_LIMITS, type RegistryLimits } from './registry-limits.js';
import type { Remedies } from './response-error.js';
import { retrying } from './retry.js';

/** Includes schema 1, so that a registry with nothing else does not answer "not found". */
const ACCEPT = [...IMAGE_MANIFEST_TYPES, ...INDEX_TYPES, ...SCHEMA1_TYPES].join(', ');

const MANIFEST_REMEDIES = { 404: 'check the name and the tag, and that it was pushed' };

export interface RegistryClientOptions {
  readonly hosts: RegistryHosts;
  readonly credentials: Credentials;
  readonly limits?: RegistryLimits;
  /** Called for the first of the wrong answers of an address, if another address is asked instead. */
  readonly reportWrong?: ReportWrongAnswer;
}

export interface PutManifest {
  /** Whether the registry lists the manifest among the referrers of its subject: it answered with OCI-Subject. */
  readonly listsReferrers: boolean;
}

export type ManifestDeletion = 'deleted' | 'missing' | 'unsupported';

/** The specification has 202; some registries answer with another success. */
const DELETED: readonly number[] = [200, 202, 204];
/** The registry deletes nothing, or not here (OCI distribution spec 1.1, "Deleting Manifests"). */
const NO_DELETION: readonly number[] = [400, 405, 501];

export class RegistryClient {
  readonly #exchange: RegistryExchange;
  readonly #limits: RegistryLimits;

  constructor({ hosts, credentials, limits = DEFAULT_LIMITS, reportWrong }: RegistryClientOptions) {
    this.#exchange = new RegistryExchange(hosts, credentials, limits, reportWrong);
    this.#limits = limits;
  }

  /**
   * Returns a blob for reads by ranges.
   *
   * @param sizeBytes - If undefined, the registry is asked for it.
   * @throws {ObdError} `InvalidArgument`, `Unsupported` for an invalid name or digest; as BlobRanges.attempt() if the
   *   size is requested.
   */
  async blobRanges(
    host: string,
    repository: string,
    digest: string,
    sizeBytes: number | undefined,
  ): Promise<RemoteBlobRanges> {
    const access = accessTo(host, repository, 'pull');
    checkDigest(digest, `a blob of ${host}/${repository}`);
    const blob = { exchange: this.#exchange, limits: this.#limits, access, digest };
    return await RemoteBlobRanges.open(blob, sizeBytes);
  }

  /**
   * @param promise - The image's description of the blob. An address with another blob is passed by.
   * @throws {ObdError} as probeBlob(); `InvalidArgument` for an invalid name or digest.
   */
  async probeBlob(
    host: string,
    repository: string,
    digest: string,
    signal: AbortSignal,
    promise: BlobPromise = {},
  ): Promise<BlobFacts> {
    const access = accessTo(host, repository, 'pull');
    checkDigest(digest, `a blob of ${host}/${repository}`);
    return await probeBlob(this.#exchange, access, { digest, ...promise }, signal);
  }

  /**
   * Returns a manifest or an index, unparsed.
   *
   * @param target - A tag, or a digest, which the returned bytes then have.
   * @param action - `push` asks the registry itself, not its mirrors, which may be behind it.
   * @throws {ObdError} `NotFound`, `Unauthorized`, `Unavailable`, `Registry`, `Corrupt`.
   */
  async getManifest(
    host: string,
    repository: string,
    target: string,
    signal?: AbortSignal,
    action: 'pull' | 'push' = 'pull',
  ): Promise<ManifestBytes> {
    const access = accessTo(host, repository, action);
    checkTarget(target);
    const label = `${host}/${repository}${isDigest(target) ? '@' : ':'}${target}`;
    const doing = `Cannot get the manifest of ${label}`;
    const url = this.#exchange.urlOf(access, `manifests/${target}`);
    const headers = { accept: ACCEPT };
    return await this.#retrying(doing, signal, async (attemptSignal) => {
      const request = {
        access,
        method: 'GET',
        url,
        headers,
        signal: attemptSignal,
        doing,
      } as const;
      const passedBy = new Set<string>();
      for (;;) {
        const response = await this.#expect(request, [200], MANIFEST_REMEDIES);
        try {
          const digest = isDigest(target) ? target : undefined;
          return await readManifest(response, digest, `the manifest of ${label}`);
        } catch (error) {
          if (attemptSignal.aborted || !(error instanceof ObdError)) throw error;
          const { askedOf } = response;
          if (!this.#exchange.passBy(access, url, askedOf, error, passedBy)) throw error;
        }
      }
    });
  }

  /**
   * Returns the artifacts of one type whose subject is a manifest, at most 64 of them. They are advice: one attempt, and
   * the caller's signal should bound its time.
   *
   * @param digest - Of the subject. A subject that the registry lacks has none.
   * @param action - `push` asks the registry itself, not its mirrors.
   * @throws {ObdError} `Unauthorized`, `Unavailable`; `Registry` for an answer that is no list.
   */
  async referrers(
    host: string,
    repository: string,
    digest: string,
    artifactType: string,
    signal?: AbortSignal,
    action: 'pull' | 'push' = 'pull',
  ): Promise<readonly ReferrerDescriptor[]> {
    const access = accessTo(host, repository, action);
    checkDigest(digest, `a manifest of ${host}/${repository}`);
    const doing = `Cannot list the artifacts of ${host}/${repository}@${digest}`;
    const policy = { attemptsMax: 1, backoffMs: 0, deadlineMs: this.#limits.requestDeadlineMs };
    const query = { access, digest, artifactType, doing };
    return await retrying(policy, doing, signal, (attemptSignal) =>
      findReferrers(this.#exchange, query, attemptSignal),
    );
  }

  /** @throws {ObdError} `Unauthorized`, `Unavailable`, `Registry`. */
  async hasBlob(
    host: string,
    repository: string,
    digest: string,
    signal?: AbortSignal,
  ): Promise<boolean> {
    const access = accessTo(host, repository, 'push');
    checkDigest(digest, `a blob of ${host}/${repository}`);
    const doing = `Cannot look for ${digest} in ${host}/${repository}`;
    const url = this.#exchange.urlOf(access, `blobs/${digest}`);
    return await this.#retrying(doing, signal, async (attemptSignal) => {
      const headers = {};
      const request = {
        access,
        method: 'HEAD',
        url,
        headers,
        signal: attemptSignal,
        doing,
      } as const;
      const response = await this.#expect(request, [200, 404]);
      await response.discard();
      return response.status === 200;
    });
  }

  /**
   * Yields a whole blob as a stream, unchecked.
   *
   * @throws {ObdError} as getManifest(), while it is iterated; not `Corrupt`.
   */
  readBlob(
    host: string,
    repository: string,
    descriptor: Descriptor,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const access = accessTo(host, repository, 'pull');
    checkDigest(descriptor.digest, `a blob of ${host}/${repository}`);
    return downloadBlob(this.#exchange, this.#limits, access, descriptor, signal);
  }

  /** @throws {ObdError} as uploadBlob(). */
  async putBlob(
    host: string,
    repository: string,
    blob: BlobContent,
    signal?: AbortSignal,
  ): Promise<void> {
    const access = accessTo(host, repository, 'push');
    checkDigest(blob.descriptor.digest, `a blob for ${host}/${repository}`);
    await uploadBlob(this.#exchange, this.#limits, access, blob, signal);
  }

  /** Deletes an upload session that an earlier process left open. Takes 3 s at most, and ignores errors of the registry. */
  async cancelUpload({ host, repository, url }: UploadSession): Promise<void> {
    await cancelUpload(this.#exchange, accessTo(host, repository, 'push'), new URL(url));
  }

  /**
   * @param target - A tag, or the digest of `bytes`.
   * @throws {ObdError} `Unauthorized`, `Unavailable`, `Registry`.
   */
  async putManifest(
    host: string,
    repository: string,
    target: string,
    { bytes, mediaType }: { readonly bytes: Uint8Array; readonly mediaType: string },
    signal?: AbortSignal,
  ): Promise<PutManifest> {
    const access = accessTo(host, repository, 'push');
    checkTarget(target);
    const doing = `Cannot put the manifest ${target} to ${host}/${repository}`;
    const url = this.#exchange.urlOf(access, `manifests/${target}`);
    const headers = { 'content-type': mediaType };
    return await this.#retrying(doing, signal, async (attemptSignal) => {
      const request = {
        access,
        method: 'PUT',
        url,
        headers,
        signal: attemptSignal,
        doing,
      } as const;
      const response = await this.#expect({ ...request, body: () => bytes }, [201]);
      await response.discard();
      return { listsReferrers: response.header('oci-subject') !== undefined };
    });
  }

  /**
   * Deletes a manifest or an index, and so the tags that name it. Its blobs stay until the registry collects them.
   *
   * @throws {ObdError} `Unauthorized`, `Unavailable`, `Registry`.
   */
  async deleteManifest(
    host: string,
    repository: string,
    digest: string,
    signal?: AbortSignal,
  ): Promise<ManifestDeletion> {
    const access = accessTo(host, repository, 'delete');
    checkDigest(digest, `a manifest of ${host}/${repository}`);
    const doing = `Cannot delete the manifest ${digest} of ${host}/${repository}`;
    const url = this.#exchange.urlOf(access, `manifests/${digest}`);
    const headers = {};
    return await this.#retrying(doing, signal, async (attemptSignal) => {
      const request = {
        access,
        method: 'DELETE',
        url,
        headers,
        signal: attemptSignal,
        doing,
      } as const;
      const response = await this.#expect(request, [...DELETED, ...NO_DELETION, 404]);
      await response.discard();
      if (response.status === 404) return 'missing';
      return DELETED.includes(response.status) ? 'deleted' : 'unsupported';
    });
  }

  /** Invalidates every login, after the credentials have changed. */
  forgetLogins(): void {
    this.#exchange.forgetLogins();
  }

  /** Aborts the requests in flight. Idempotent. */
  async close(): Promise<void> {
    await this.#exchange.close();
  }

  async #expect(
    request: RegistryRequest,
    statuses: readonly number[],
    remedies: Remedies = {},
  ): Promise<HttpResponse> {
    const response = await this.#exchange.send(request);
    if (statuses.includes(response.status)) return response;
    throw await this.#exchange.errorOf(response, request.access, remedies);
  }

  #retrying<T>(
    doing: string,
    signal: AbortSignal | undefined,
    attempt: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { attemptsMax, backoffMs, requestDeadlineMs } = this.#limits;
    const policy = { attemptsMax, backoffMs, deadlineMs: requestDeadlineMs };
    return retrying(policy, doing, signal, attempt);
  }
}

function accessTo(host: string, repository: string, action: Access['action']): Access {
  if (isHost(host) && isRepository(repository)) return { host, repository, action };
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `${JSON.stringify(`${host}/${repository}`.slice(0, 300))} is not a host and repository of a registry`,
  );
}

function checkTarget(target: string): void {
  if (isTag(target) || isDigest(target)) return;
  const shown = JSON.stringify(target.slice(0, 100));
  throw new ObdError(ErrorCodes.InvalidArgument, `${shown} is neither a tag nor a digest`);
}
