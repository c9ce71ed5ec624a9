/** An image in a registry, as a source and as a destination. */

import { sha256Of } from '../oci/digest.js';
import type { AddedArtifact, ImageDestination, ImageSource } from '../oci/image-store.js';
import { type Descriptor, parseManifest, type StoredManifest } from '../oci/manifest.js';
import type { ImageReference } from '../oci/reference.js';
import type { NoteUpload } from './blob-upload.js';
import { publishArtifact } from './publish-artifact.js';
import type { RegistryClient } from './registry-client.js';
import { mismatch, verifiedBlob } from './verified-blob.js';

const EMPTY_DIGEST = sha256Of(new Uint8Array());

export class RegistrySource implements ImageSource {
  readonly label: string;
  readonly #client: RegistryClient;
  readonly #reference: ImageReference;
  readonly #signal: AbortSignal | undefined;

  /** @param client - The caller closes it. */
  constructor(client: RegistryClient, reference: ImageReference, signal?: AbortSignal) {
    this.label = `docker://${reference}`;
    this.#client = client;
    this.#reference = reference;
    this.#signal = signal;
  }

  async resolve(): Promise<StoredManifest> {
    return await this.#get(this.#reference.target, undefined, this.label);
  }

  async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
    const label = `manifest ${descriptor.digest} of ${this.label}`;
    const found = await this.#get(descriptor.digest, descriptor.mediaType, label);
    const { size } = found.descriptor;
    if (size === descriptor.size) return found;
    throw mismatch(label, descriptor, `it has ${size} bytes, and ${descriptor.size} were promised`);
  }

  readBlob(descriptor: Descriptor): AsyncIterable<Uint8Array> {
    const { host, repository } = this.#reference;
    const pieces = this.#client.readBlob(host, repository, descriptor, this.#signal);
    return verifiedBlob(pieces, descriptor, `${descriptor.digest} of ${this.label}`);
  }

  async close(): Promise<void> {}

  async #get(target: string, promised: string | undefined, label: string): Promise<StoredManifest> {
    const { host, repository } = this.#reference;
    const found = await this.#client.getManifest(host, repository, target, this.#signal);
    return parseManifest(found.bytes, promised ?? found.mediaType, label);
  }
}

export class RegistryDestination implements ImageDestination {
  readonly label: string;
  readonly #client: RegistryClient;
  readonly #reference: ImageReference;
  readonly #signal: AbortSignal | undefined;
  readonly #noteUpload: NoteUpload | undefined;

  /** @param client - The caller closes it. */
  constructor(
    client: RegistryClient,
    reference: ImageReference,
    signal?: AbortSignal,
    noteUpload?: NoteUpload,
  ) {
    this.label = `docker://${reference}`;
    this.#client = client;
    this.#reference = reference;
    this.#signal = signal;
    this.#noteUpload = noteUpload;
  }

  async check(): Promise<void> {
    const { host, repository } = this.#reference;
    // Looking for any blob needs the login for pushing.
    await this.#client.hasBlob(host, repository, EMPTY_DIGEST, this.#signal);
  }

  async hasBlob({ digest }: Descriptor): Promise<boolean> {
    const { host, repository } = this.#reference;
    return await this.#client.hasBlob(host, repository, digest, this.#signal);
  }

  async putBlob(
    descriptor: Descriptor,
    content: string | Uint8Array,
    onBytes?: (bytes: number) => void,
  ): Promise<void> {
    const { host, repository } = this.#reference;
    const blob = { descriptor, content, onBytes, noteUpload: this.#noteUpload };
    await this.#client.putBlob(host, repository, blob, this.#signal);
  }

  async putManifest(bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
    return await this.#put(sha256Of(bytes), bytes, mediaType);
  }

  async publish(bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
    return await this.#put(this.#reference.target, bytes, mediaType);
  }

  async putArtifact(subject: Descriptor, artifact: AddedArtifact): Promise<void> {
    const { host, repository } = this.#reference;
    await publishArtifact(this.#client, host, repository, subject, artifact, this.#signal);
  }

  /** Does nothing: the registry collects blobs that were sent and not published. */
  async close(): Promise<void> {}

  async #put(target: string, bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
    const { host, repository } = this.#reference;
    await this.#client.putManifest(host, repository, target, { bytes, mediaType }, this.#signal);
    return { mediaType, digest: sha256Of(bytes), size: bytes.length };
  }
}
