/**
 * Reads an image from an OCI layout. Every blob is checked against its descriptor as it is read. A layout that reaches
 * outside its directory is refused (oci-layout.ts).
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import type { ImageSource } from '../oci/image-store.js';
import {
  type Descriptor,
  MANIFEST_BYTES_MAX,
  parseManifest,
  type StoredManifest,
} from '../oci/manifest.js';
import { piecesOfFile } from './file-pieces.js';
import {
  blobFile,
  checkBlobDirectories,
  checkLayoutVersion,
  openLayoutFile,
  REF_NAME_ANNOTATION,
  readIndex,
  readLayoutFile,
} from './oci-layout.js';
import { mismatch, verifiedBlob } from './verified-blob.js';

/** Maximum number of tags in a message; a layout can have a thousand. */
const TAGS_SHOWN_MAX = 10;

export class OciLayoutSource implements ImageSource {
  readonly label: string;
  readonly #directory: string;
  readonly #tag: string | undefined;
  readonly #signal: AbortSignal | undefined;

  /** @param tag - Undefined means the only image in the layout. */
  constructor(directory: string, tag: string | undefined, signal?: AbortSignal) {
    this.label = tag === undefined ? `oci:${directory}` : `oci:${directory}:${tag}`;
    this.#directory = directory;
    this.#tag = tag;
    this.#signal = signal;
  }

  async resolve(): Promise<StoredManifest> {
    this.#signal?.throwIfAborted();
    await checkLayoutVersion(this.#directory);
    await checkBlobDirectories(this.#directory);
    const { manifests } = await readIndex(this.#directory);
    const tag = this.#tag;
    const named = manifests.filter(
      ({ annotations }) => tag === undefined || annotations?.[REF_NAME_ANNOTATION] === tag,
    );
    const [only] = named;
    if (only !== undefined && named.length === 1) return await this.readManifest(only);
    const tags = manifests.flatMap(({ annotations }) => annotations?.[REF_NAME_ANNOTATION] ?? []);
    throw this.#ambiguous(named.length, tags);
  }

  async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
    this.#signal?.throwIfAborted();
    const path = blobFile(this.#directory, descriptor.digest);
    const bytes = await readLayoutFile(path, MANIFEST_BYTES_MAX);
    if (bytes.length !== descriptor.size) {
      const problem = `it has ${bytes.length} bytes, and its descriptor says ${descriptor.size}`;
      throw mismatch(`"${path}"`, descriptor, problem);
    }
    const found = sha256Of(bytes);
    if (found !== descriptor.digest) {
      throw mismatch(`"${path}"`, descriptor, `its digest is ${found}`);
    }
    return parseManifest(bytes, descriptor.mediaType, `"${path}"`);
  }

  async *readBlob(descriptor: Descriptor): AsyncGenerator<Uint8Array, void, undefined> {
    const path = blobFile(this.#directory, descriptor.digest);
    const { file, sizeBytes } = await openLayoutFile(path);
    try {
      if (sizeBytes !== descriptor.size) {
        const problem = `it has ${sizeBytes} bytes, and its descriptor says ${descriptor.size}`;
        throw mismatch(`"${path}"`, descriptor, problem);
      }
      yield* verifiedBlob(piecesOfFile(file, path, this.#signal), descriptor, `"${path}"`);
    } finally {
      await file.close();
    }
  }

  async close(): Promise<void> {}

  #ambiguous(found: number, tags: readonly string[]): ObdError {
    const more = tags.length > TAGS_SHOWN_MAX ? ', ...' : '';
    const listed =
      tags.length === 0
        ? 'it has no tags'
        : `its tags are ${tags.slice(0, TAGS_SHOWN_MAX).map(printable).join(', ')}${more}`;
    const problem =
      this.#tag === undefined
        ? `it holds ${found} images; add ":TAG"`
        : `${found === 0 ? 'no image has' : `${found} images have`} the tag "${this.#tag}"`;
    return new ObdError(
      found === 0 ? ErrorCodes.NotFound : ErrorCodes.InvalidArgument,
      `Cannot choose an image from "${this.#directory}": ${problem}; ${listed}`,
      { path: this.#directory },
    );
  }
}

function printable(tag: string): string {
  return JSON.stringify(tag.slice(0, 128));
}
