/**
 * Writes an image to an OCI layout, and creates the directory and its version file if necessary.
 *
 * Order on disk: blobs first, each complete, checked and synced before it has its name; index.json last, replaced in
 * one rename. So a reader sees either the old image or the new one. close() removes the files of an unpublished
 * destination; a crash leaves orphaned blobs.
 *
 * One writer at a time: two concurrent publish() calls could each replace the other's entry.
 */
import { mkdir, open, readdir, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ErrorCodes, ObdError, systemCode } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import type { ImageDestination } from '../oci/image-store.js';
import { type Descriptor, type ImageIndex, parseManifest } from '../oci/manifest.js';
import { OCI_INDEX } from '../oci/media-types.js';
import { piecesOfFile } from './file-pieces.js';
import {
  blobFile,
  checkBlobDirectories,
  checkLayoutVersion,
  indexFile,
  isMissing,
  LAYOUT_VERSION,
  layoutError,
  layoutFile,
  openLayoutFile,
  REF_NAME_ANNOTATION,
  readIndex,
  writeLayoutFile,
} from './oci-layout.js';
import { verifiedBlob } from './verified-blob.js';

export class OciLayoutDestination implements ImageDestination {
  readonly label: string;
  readonly #directory: string;
  readonly #tag: string | undefined;
  readonly #signal: AbortSignal | undefined;
  /** New blobs that are not published yet. */
  #unpublished: string[] = [];
  /** Directories created here, innermost last; close() removes them if publish() did not run. */
  #made: string[] = [];
  #prepared: Promise<void> | undefined;

  /** @param tag - Undefined adds the image without a name and keeps the named ones. */
  constructor(directory: string, tag: string | undefined, signal?: AbortSignal) {
    this.label = tag === undefined ? `oci:${directory}` : `oci:${directory}:${tag}`;
    this.#directory = directory;
    this.#tag = tag;
    this.#signal = signal;
  }

  async check(): Promise<void> {
    await this.#prepare();
  }

  async hasBlob({ digest, size }: Descriptor): Promise<boolean> {
    try {
      const { file, sizeBytes } = await openLayoutFile(blobFile(this.#directory, digest));
      await file.close();
      return sizeBytes === size;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  async putBlob(
    descriptor: Descriptor,
    content: string | Uint8Array,
    onBytes?: (bytes: number) => void,
  ): Promise<void> {
    this.#signal?.throwIfAborted();
    await this.#prepare();
    const path = blobFile(this.#directory, descriptor.digest);
    const isNew = !(await this.hasBlob(descriptor));
    const label = typeof content === 'string' ? `"${content}"` : descriptor.digest;
    const pieces = verifiedBlob(this.#piecesOf(content), descriptor, label);
    await writeLayoutFile(path, counted(pieces, onBytes));
    if (isNew) this.#unpublished.push(path);
  }

  async putManifest(bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
    const digest = sha256Of(bytes);
    const { descriptor } = parseManifest(bytes, mediaType, `manifest ${digest}`);
    if (!(await this.hasBlob(descriptor))) await this.putBlob(descriptor, bytes);
    return descriptor;
  }

  async publish(bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
    const descriptor = await this.putManifest(bytes, mediaType);
    const index = await this.#index();
    const tag = this.#tag;
    const others = index.manifests.filter(({ digest, annotations }) => {
      const name = annotations?.[REF_NAME_ANNOTATION];
      return name !== tag || (tag === undefined && digest !== descriptor.digest);
    });
    const named =
      tag === undefined
        ? descriptor
        : { ...descriptor, annotations: { [REF_NAME_ANNOTATION]: tag } };
    const json = { ...index, manifests: [...others, named] };
    await writeLayoutFile(indexFile(this.#directory), [Buffer.from(JSON.stringify(json))]);
    this.#unpublished = [];
    this.#made = [];
    return descriptor;
  }

  /**
   * Does nothing: index.json would list the artifact, and readers take each entry there for an image. They refuse to choose
   * one of two where the user gave no tag.
   */
  async putArtifact(): Promise<void> {}

  async close(): Promise<void> {
    const blobs = this.#unpublished;
    const directories = this.#made;
    this.#unpublished = [];
    this.#made = [];
    for (const path of blobs) await rm(path, { force: true });
    if (directories.includes(this.#directory))
      await rm(layoutFile(this.#directory), { force: true });
    // rmdir() keeps a directory that another process has put files into.
    for (const path of directories.toReversed()) await rmdir(path).catch(() => {});
  }

  /** Creates the missing parts of the layout, once; refuses a directory with other contents. */
  async #prepare(): Promise<void> {
    this.#prepared ??= this.#makeLayout();
    await this.#prepared;
  }

  async #makeLayout(): Promise<void> {
    try {
      await checkLayoutVersion(this.#directory);
    } catch (error) {
      if (!isMissing(error)) throw error;
      await this.#makeDirectory(this.#directory);
      await this.#checkEmpty();
      const version = JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION });
      await writeLayoutFile(layoutFile(this.#directory), [Buffer.from(version)]);
    }
    await this.#makeDirectory(join(this.#directory, 'blobs'));
    await this.#makeDirectory(join(this.#directory, 'blobs', 'sha256'));
    await checkBlobDirectories(this.#directory);
  }

  async #makeDirectory(path: string): Promise<void> {
    try {
      await mkdir(path);
      this.#made.push(path);
    } catch (error) {
      if (systemCode(error) === 'ENOENT' && dirname(path) !== path) {
        await this.#makeDirectory(dirname(path));
        await this.#makeDirectory(path);
        return;
      }
      const exists = await stat(path).then(
        (found) => found.isDirectory(),
        () => false,
      );
      if (!exists) throw layoutError(path, 'write', error);
    }
  }

  async #checkEmpty(): Promise<void> {
    const names = await readdir(this.#directory);
    if (names.length === 0) return;
    throw new ObdError(
      ErrorCodes.FailedPrecondition,
      `Cannot write an OCI layout to "${this.#directory}": it holds other things; name a new directory`,
      { path: this.#directory },
    );
  }

  async #index(): Promise<ImageIndex> {
    try {
      return await readIndex(this.#directory);
    } catch (error) {
      if (!isMissing(error)) throw error;
      return { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] };
    }
  }

  async *#piecesOf(content: string | Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
    if (typeof content !== 'string') {
      yield content;
      return;
    }
    const file = await open(content, 'r').catch((error: unknown) => {
      throw layoutError(content, 'read', error);
    });
    try {
      yield* piecesOfFile(file, content, this.#signal);
    } finally {
      await file.close();
    }
  }
}

async function* counted(
  pieces: AsyncIterable<Uint8Array>,
  onBytes: ((bytes: number) => void) | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of pieces) {
    yield piece;
    onBytes?.(piece.length);
  }
}
