/**
 * The files of an OCI image layout (OCI image spec 1.1, "image-layout") and how each is opened or replaced:
 *
 *     DIR/oci-layout            {"imageLayoutVersion":"1.0.0"}
 *     DIR/index.json            lists manifests; one annotated `org.opencontainers.image.ref.name` has a tag
 *     DIR/blobs/sha256/<hex>    manifests, configs and layers alike
 *
 * A layout is untrusted. This module opens only regular files inside the directory: it follows no symbolic link below
 * DIR, never blocks on a FIFO, and makes names of checked digests only. It replaces files as a whole.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, hasCode, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { replaceFile } from '../io/replace-file.js';
import { checkDigest } from '../oci/digest.js';
import { type ImageIndex, MANIFEST_BYTES_MAX, parseLayoutIndex } from '../oci/manifest.js';

export const REF_NAME_ANNOTATION = 'org.opencontainers.image.ref.name';
export const LAYOUT_VERSION = '1.0.0';
/** The version file is one line. */
const LAYOUT_FILE_BYTES_MAX = 4096;

export function layoutFile(directory: string): string {
  return join(directory, 'oci-layout');
}

export function indexFile(directory: string): string {
  return join(directory, 'index.json');
}

/** @throws {ObdError} `InvalidArgument`, or `Unsupported` for a digest other than sha256. */
export function blobFile(directory: string, digest: string): string {
  checkDigest(digest, `a blob of "${directory}"`);
  return join(directory, 'blobs', 'sha256', digest.slice('sha256:'.length));
}

/**
 * Opens a regular file of a layout for reading.
 *
 * @throws {ObdError} `NotFound`, `Corrupt` if it is not a regular file in a directory, `Io`.
 */
export async function openLayoutFile(
  path: string,
): Promise<{ readonly file: FileHandle; readonly sizeBytes: number }> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  let file: FileHandle | undefined;
  try {
    file = await open(path, flags);
    const stat = await file.stat();
    if (!stat.isFile()) throw notPlain(path, 'a regular file');
    return { file, sizeBytes: stat.size };
  } catch (error) {
    await file?.close();
    throw layoutError(path, 'read', error);
  }
}

/** Refuses a layout whose blobs lie elsewhere. @throws {ObdError} `Corrupt`, `NotFound`, `Io`. */
export async function checkBlobDirectories(directory: string): Promise<void> {
  for (const path of [join(directory, 'blobs'), join(directory, 'blobs', 'sha256')]) {
    let stat: Stats;
    try {
      stat = await lstat(path);
    } catch (error) {
      throw layoutError(path, 'read', error);
    }
    if (!stat.isDirectory()) throw notPlain(path, 'a directory');
  }
}

/** Checks the version file. @throws {ObdError} `NotFound` if there is none, `Corrupt`, `Unsupported`, `Io`. */
export async function checkLayoutVersion(directory: string): Promise<void> {
  const path = layoutFile(directory);
  const bytes = await readLayoutFile(path, LAYOUT_FILE_BYTES_MAX);
  let version: unknown;
  try {
    const json: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    version = (json as Readonly<Record<string, unknown>> | null)?.['imageLayoutVersion'];
  } catch {
    version = undefined;
  }
  if (typeof version !== 'string') {
    throw new ObdError(
      ErrorCodes.Corrupt,
      `Cannot use "${directory}": its oci-layout file states no imageLayoutVersion`,
      { path },
    );
  }
  if (version === LAYOUT_VERSION) return;
  throw new ObdError(
    ErrorCodes.Unsupported,
    `Cannot use "${directory}": its layout version is ${JSON.stringify(version.slice(0, 40))}, wanted ${LAYOUT_VERSION}`,
    { path },
  );
}

/** @throws {ObdError} as checkLayoutVersion(). */
export async function readIndex(directory: string): Promise<ImageIndex> {
  const path = indexFile(directory);
  return parseLayoutIndex(await readLayoutFile(path, MANIFEST_BYTES_MAX), `"${path}"`);
}

/** @throws {ObdError} `Unsupported` if it is larger than that, and errors of openLayoutFile(). */
export async function readLayoutFile(path: string, bytesMax: number): Promise<Uint8Array> {
  const { file, sizeBytes } = await openLayoutFile(path);
  try {
    if (sizeBytes > bytesMax) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot read "${path}": it has ${sizeBytes} bytes, and the limit is ${bytesMax}`,
        { path },
      );
    }
    const bytes = Buffer.alloc(sizeBytes);
    const { bytesRead } = await file.read(bytes, 0, sizeBytes, 0);
    return bytes.subarray(0, bytesRead);
  } catch (error) {
    throw layoutError(path, 'read', error);
  } finally {
    await file.close();
  }
}

/**
 * Makes `path` hold the `pieces`, all of them or none, also across a crash.
 *
 * @throws {ObdError} `NoSpace`, `Io`, and the errors of `pieces`; then `path` is unchanged.
 */
export async function writeLayoutFile(
  path: string,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  try {
    await replaceFile(path, 0o644, async (file) => {
      for await (const piece of pieces) await file.writeFile(piece);
    });
  } catch (error) {
    throw layoutError(path, 'write', error);
  }
}

/** Converts the error of a failed system call on a file of a layout; returns other errors as they are. */
export function layoutError(path: string, action: 'read' | 'write', error: unknown): unknown {
  const system = systemCode(error);
  if (system === undefined) return error;
  if (system === 'ENOENT') {
    return new ObdError(
      ErrorCodes.NotFound,
      `Cannot ${action} "${path}": it does not exist`,
      { path },
      error,
    );
  }
  if (system === 'ELOOP') return notPlain(path, 'a regular file');
  const full = isDiskFull(error);
  const code = full ? ErrorCodes.NoSpace : ErrorCodes.Io;
  const remedy = full ? '; make room, or name another directory' : '';
  const message = `Cannot ${action} "${path}": ${messageOf(error)}${remedy}`;
  return new ObdError(code, message, { path }, error);
}

/** Whether the error says that a layout's file is missing. */
export function isMissing(error: unknown): boolean {
  return hasCode(error, ErrorCodes.NotFound);
}

function notPlain(path: string, wanted: string): ObdError {
  const message = `Cannot use "${path}" as part of an OCI layout: it is not ${wanted}, or reached by a link`;
  return new ObdError(ErrorCodes.Corrupt, message, { path });
}
