/**
 * Source and destination of an image: a registry (registry-image.ts) or an OCI layout (oci-layout.ts).
 * open-image-store.ts makes one from the text that a user typed.
 *
 * Both check digest and size against the descriptor, a document before they return its first byte and a stream before
 * its end. Blobs are streamed; only manifests are held in memory.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Descriptor, StoredManifest } from './manifest.js';

export interface ImageSource {
  /** In full, for messages: `docker://docker.io/library/debian:12`. */
  readonly label: string;

  /**
   * Returns the manifest or the index that has the name.
   *
   * @throws {ObdError} `NotFound`, `Unauthorized`, `Unavailable`, `Registry`, `Corrupt`, `Unsupported`, `Io`.
   */
  resolve(): Promise<StoredManifest>;

  /** Returns a manifest that an index lists. @throws {ObdError} as resolve(). */
  readManifest(descriptor: Descriptor): Promise<StoredManifest>;

  /**
   * Yields the bytes of a blob, as stored, in pieces of any size, which the reader may keep. Ends with an error unless
   * they were `descriptor.size` bytes with `descriptor.digest`; a reader that stops early has unchecked bytes.
   *
   * @throws {ObdError} as resolve(), while it is iterated.
   */
  readBlob(descriptor: Descriptor): AsyncIterable<Uint8Array>;

  /** Releases its resources. Idempotent. */
  close(): Promise<void>;
}

/** An artifact for a stored manifest, with its blobs. */
export interface AddedArtifact {
  readonly artifactType: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly blobs: readonly {
    readonly descriptor: Descriptor;
    /** The path of a file, or the bytes. */
    readonly content: string | Uint8Array;
  }[];
}

export interface ImageDestination {
  /** In full, for messages. */
  readonly label: string;

  /**
   * Fails before the first layer is converted if storing it would fail: the registry cannot be reached or refuses the
   * login, or the directory cannot be made.
   *
   * @throws {ObdError} as putBlob().
   */
  check(): Promise<void>;

  /** Returns whether the blob is stored already; then the caller can skip putBlob(). */
  hasBlob(descriptor: Descriptor): Promise<boolean>;

  /**
   * Stores a blob. Nothing is stored unless it has the descriptor's digest and size.
   *
   * @param content - The path of a file, or the bytes.
   * @param onBytes - Called with the number of bytes just sent, for progress; a retry reports some again.
   * @throws {ObdError} `Corrupt` if the content is not what the descriptor states, `NoSpace`, `Io`, and for a
   *   registry `Unauthorized`, `Unavailable`, `Registry`.
   */
  putBlob(
    descriptor: Descriptor,
    content: string | Uint8Array,
    onBytes?: (bytes: number) => void,
  ): Promise<void>;

  /**
   * Stores a manifest or an index that an index will list, so that it is found by digest only. Everything it
   * refers to must be stored already.
   */
  putManifest(bytes: Uint8Array, mediaType: string): Promise<Descriptor>;

  /**
   * Stores a manifest or an index under the name this destination was opened with. It is the last step:
   * readers see no image before it, and the complete image after it.
   */
  publish(bytes: Uint8Array, mediaType: string): Promise<Descriptor>;

  /**
   * Stores an artifact and lists it with its subject. An OCI layout has no such lists, and stores none.
   *
   * @param subject - A manifest that is stored here.
   * @throws {ObdError} as putBlob(), and `Busy` if other writers of the list undid the change each time.
   */
  putArtifact(subject: Descriptor, artifact: AddedArtifact): Promise<void>;

  /** Releases its resources; without publish(), also removes what it wrote as far as possible. Idempotent. */
  close(): Promise<void>;
}

/**
 * Reads a whole blob that is known to be small, such as an image config.
 *
 * @param bytesMax - A larger blob is refused before anything is read.
 * @throws {ObdError} as ImageSource.readBlob(), and `Unsupported` for a larger one.
 */
export async function readSmallBlob(
  source: ImageSource,
  descriptor: Descriptor,
  bytesMax: number,
): Promise<Uint8Array> {
  const { digest, size } = descriptor;
  if (size > bytesMax) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot read ${digest} of ${source.label}: it has ${size} bytes, and the limit is ${bytesMax}`,
      { digest },
    );
  }
  const bytes = Buffer.alloc(size);
  let filled = 0;
  for await (const piece of source.readBlob(descriptor)) {
    bytes.set(piece, filled);
    filled += piece.length;
  }
  return bytes;
}
