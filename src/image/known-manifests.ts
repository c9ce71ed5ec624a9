/**
 * The manifests that `obdctl mount` got from registries, so that an image can be mounted again while its registry is away.
 *
 *     STATE_DIR/manifests/HASH.json    {"version":1,"name":…,"digest":…,"mediaType":…,"seenAt":…,"bytes":…}
 *
 * One file per name, `host/repository:tag` or `host/repository@digest`; HASH is of the name. A written manifest had the
 * digest that the registry promised; get() checks the digest in the file, and the one in the name. put() keeps at most
 * MANIFESTS_MAX files of some 1.4 MANIFEST_BYTES_MAX each, and evicts the oldest.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { replaceFile } from '../io/replace-file.js';
import { sha256Of } from '../oci/digest.js';
import { parseManifest, type StoredManifest } from '../oci/manifest.js';

const MANIFESTS_MAX = 512;
/** The manifest of an overlaybd image of 128 layers has 100 KiB. */
const MANIFEST_BYTES_MAX = 256 << 10;
const HASH_DIGITS = 32;

const entry = z.object({
  version: z.literal(1),
  name: z.string(),
  digest: z.string(),
  mediaType: z.string(),
  seenAt: z.iso.datetime(),
  bytes: z.base64(),
});

export interface KnownManifest {
  readonly manifest: StoredManifest;
  /** When a registry last returned it under this name. */
  readonly seenAt: Date;
}

export class KnownManifests {
  readonly #directory: string;

  /** @param stateDirectory - obd-blockd's. */
  constructor(stateDirectory: string) {
    this.#directory = join(stateDirectory, 'manifests');
  }

  /** Never throws: an image whose manifest cannot be kept, as on a full disk, is mounted all the same. */
  async put(name: string, { descriptor, bytes }: StoredManifest): Promise<void> {
    if (bytes.length > MANIFEST_BYTES_MAX) return;
    const { digest, mediaType } = descriptor;
    const seenAt = new Date().toISOString();
    const base64 = Buffer.from(bytes).toString('base64');
    const text = JSON.stringify({ version: 1, name, digest, mediaType, seenAt, bytes: base64 });
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await replaceFile(this.#pathOf(name), 0o600, (file) => file.writeFile(text));
      await this.#prune();
    } catch {
      // The next mount that gets the manifest tries again.
    }
  }

  /** @returns Undefined if it is missing or damaged. */
  async get(name: string): Promise<KnownManifest | undefined> {
    try {
      const found = entry.parse(JSON.parse(await readFile(this.#pathOf(name), 'utf8')));
      const bytes = Buffer.from(found.bytes, 'base64');
      if (found.name !== name || sha256Of(bytes) !== found.digest) return undefined;
      if (name.includes('@') && !name.endsWith(`@${found.digest}`)) return undefined;
      return {
        manifest: parseManifest(bytes, found.mediaType, name),
        seenAt: new Date(found.seenAt),
      };
    } catch {
      return undefined;
    }
  }

  /** Also evicts temporary files that a crash orphaned. */
  async #prune(): Promise<void> {
    const names = await readdir(this.#directory);
    if (names.length <= MANIFESTS_MAX) return;
    const files = await Promise.all(
      names.map(async (name) => {
        const path = join(this.#directory, name);
        return { path, atMs: (await stat(path)).mtimeMs };
      }),
    );
    files.sort((a, b) => a.atMs - b.atMs);
    const surplus = files.slice(0, files.length - MANIFESTS_MAX);
    await Promise.all(surplus.map(({ path }) => rm(path, { force: true })));
  }

  #pathOf(name: string): string {
    const hash = createHash('sha256').update(name).digest('hex');
    return join(this.#directory, `${hash.slice(0, HASH_DIGITS)}.json`);
  }
}
