/**
 * Writes OCI image layouts for tests, file by file, so that a test can put anything into one: other
 * compressions, wrong digests, damaged blobs. Independent of our own code for layouts.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: Readonly<Record<string, string>>;
}

export interface LayerSource {
  readonly mediaType: string;
  /** As stored. */
  readonly blob: Uint8Array;
  /** Diff ID: digest of the uncompressed tar. */
  readonly diffId: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export class LayoutBuilder {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
    mkdirSync(join(directory, 'blobs', 'sha256'), { recursive: true });
    writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    writeFileSync(join(directory, 'index.json'), '{"schemaVersion":2,"manifests":[]}');
  }

  blobPath(digest: string): string {
    return join(this.directory, 'blobs', digest.replace(':', '/'));
  }

  addBlob(mediaType: string, bytes: Uint8Array): Descriptor {
    const digest = sha256(bytes);
    writeFileSync(this.blobPath(digest), bytes);
    return { mediaType, digest, size: bytes.length };
  }

  addJson(mediaType: string, value: unknown): Descriptor {
    return this.addBlob(mediaType, Buffer.from(JSON.stringify(value)));
  }

  /** Adds config and manifest for these layers; the manifest is not tagged yet. */
  addImage(layers: readonly LayerSource[], architecture = 'amd64'): Descriptor {
    const config = this.addJson('application/vnd.oci.image.config.v1+json', {
      architecture,
      os: 'linux',
      config: { Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      history: layers.map((_, i) => ({ created_by: `layer ${i}` })),
    });
    const descriptors = layers.map(({ mediaType, blob, annotations }) => ({
      ...this.addBlob(mediaType, blob),
      ...(annotations === undefined ? {} : { annotations }),
    }));
    return this.addJson('application/vnd.oci.image.manifest.v1+json', {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config,
      layers: descriptors,
    });
  }

  tag(name: string, descriptor: Descriptor): void {
    const index = readJson<{ manifests: Descriptor[] }>(join(this.directory, 'index.json'));
    const annotations = { 'org.opencontainers.image.ref.name': name };
    index.manifests.push({ ...descriptor, annotations });
    writeFileSync(
      join(this.directory, 'index.json'),
      JSON.stringify({ schemaVersion: 2, ...index }),
    );
  }
}

/** Returns the document that a tag of a layout points to, read without our own code. */
export function taggedManifest(directory: string, tag: string): Descriptor {
  const index = readJson<{ manifests: Descriptor[] }>(join(directory, 'index.json'));
  const found = index.manifests.find(
    ({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === tag,
  );
  if (found === undefined) throw new TypeError(`no tag ${tag} in ${directory}`);
  return found;
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

export function blobPath(directory: string, digest: string): string {
  return join(directory, 'blobs', digest.replace(':', '/'));
}
