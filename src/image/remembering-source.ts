/**
 * An image in a registry that can still be looked up while the registry is unavailable, by the last known manifest of the
 * name, if there is one.
 *
 * Unavailable means unreachable or broken. 401, 403 and 404 are answers.
 */
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { ImageSource } from '../oci/image-store.js';
import type { Descriptor, StoredManifest } from '../oci/manifest.js';
import type { ImageReference } from '../oci/reference.js';
import type { RegistryClient } from '../registry/registry-client.js';
import { RegistrySource } from '../registry/registry-image.js';
import type { KnownManifest, KnownManifests } from './known-manifests.js';

/** A registry that answers does so in less; a caller who has an alternative need not wait for all attempts. */
const FALLBACK_AFTER_MS = 5_000;

export interface RememberingOptions {
  readonly known: KnownManifests;
  readonly signal: AbortSignal;
  /** Called when the registry is unavailable, and a known manifest is used. */
  readonly onUnavailable: (known: KnownManifest, error: unknown) => void;
}

export class RememberingSource implements ImageSource {
  readonly label: string;
  readonly #client: RegistryClient;
  readonly #reference: ImageReference;
  readonly #options: RememberingOptions;
  #isUnavailable = false;

  /** @param client - Stays the caller's to close. */
  constructor(client: RegistryClient, reference: ImageReference, options: RememberingOptions) {
    this.label = `docker://${reference}`;
    this.#client = client;
    this.#reference = reference;
    this.#options = options;
  }

  async resolve(): Promise<StoredManifest> {
    const { host, repository, target, digest } = this.#reference;
    const name = `${host}/${repository}${digest === undefined ? ':' : '@'}${target}`;
    const { known, onUnavailable } = this.#options;
    const last = await known.get(name);
    if (last === undefined) return await this.#remember(name, await this.#source().resolve());
    let found: StoredManifest;
    try {
      found = await this.#patiently((source) => source.resolve());
    } catch (error) {
      if (!hasCode(error, ErrorCodes.Unavailable)) throw error;
      this.#isUnavailable = true;
      onUnavailable(last, error);
      return last.manifest;
    }
    return await this.#remember(name, found);
  }

  async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
    const name = this.#nameOf(descriptor.digest);
    const last = this.#isUnavailable ? await this.#options.known.get(name) : undefined;
    if (last !== undefined) return last.manifest;
    return await this.#remember(name, await this.#source().readManifest(descriptor));
  }

  readBlob(descriptor: Descriptor): AsyncIterable<Uint8Array> {
    return this.#source().readBlob(descriptor);
  }

  async close(): Promise<void> {}

  #source(signal = this.#options.signal): RegistrySource {
    return new RegistrySource(this.#client, this.#reference, signal);
  }

  /** @throws {ObdError} `Unavailable` also after FALLBACK_AFTER_MS; errors of `ask`. */
  async #patiently(ask: (source: RegistrySource) => Promise<StoredManifest>) {
    const { signal } = this.#options;
    const patience = AbortSignal.timeout(FALLBACK_AFTER_MS);
    try {
      return await ask(this.#source(AbortSignal.any([signal, patience])));
    } catch (error) {
      if (!patience.aborted || signal.aborted || hasAnswered(error)) throw error;
      const { host } = this.#reference;
      const message = `Cannot get the manifest of ${this.label}: ${host} did not answer within ${FALLBACK_AFTER_MS} ms`;
      throw new ObdError(ErrorCodes.Unavailable, message, {}, error);
    }
  }

  /** Stores it under its digest too: the next mount may name the image by digest. */
  async #remember(name: string, found: StoredManifest): Promise<StoredManifest> {
    const { known } = this.#options;
    for (const each of new Set([name, this.#nameOf(found.descriptor.digest)])) {
      await known.put(each, found);
    }
    return found;
  }

  #nameOf(digest: string): string {
    const { host, repository } = this.#reference;
    return `${host}/${repository}@${digest}`;
  }
}

function hasAnswered(error: unknown): boolean {
  const codes = [ErrorCodes.Unauthorized, ErrorCodes.NotFound, ErrorCodes.Registry];
  return codes.some((code) => hasCode(error, code)) || hasCode(error, ErrorCodes.Corrupt);
}
