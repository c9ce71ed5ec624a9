/**
 * Tells the directory of an image's layer from that of a plain layer: the blob is a tar of one file, which containerd has
 * unpacked.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, ObdError, systemCode } from '../errors.js';
import { HEAD_BYTES, isMarked, type LayerKind } from '../layers/layer-kind.js';
import type { ImageLayer, Layer, Snapshot } from './snapshot.js';

/** For a layer that was not announced. */
export const UNDESCRIBED: ImageLayer = { lower: {}, fileSystem: '' };

/** A TurboOCI layer has its mark, the metadata of a file system, and the index of a compressed tar. */
const NAMES_MAX = 3;
const TURBO_MARK = '.turbo.ociv1';

const TURBO_PROBLEM =
  'a TurboOCI layer, which has no file contents; pull the original image, or convert that with obdconv';
const UNKNOWN_PROBLEM =
  'an overlaybd layer of unknown format; update obd-ts, or convert the original image with obdconv';

interface UnpackedLayer {
  readonly kind: LayerKind;
  /** Name of the file. */
  readonly file: string;
}

/**
 * The layer that an active snapshot is once it is committed. Only an announced trace counts as one.
 *
 * @param files - Directory of its files.
 * @throws {ObdError} `FailedPrecondition` if a layer of blocks was announced and is not there; `Unsupported` for a layer that
 *   would give containers metadata in place of its files.
 */
export async function committedLayer(
  { name, chainId, layer, labels }: Snapshot,
  files: string,
  kinds: readonly LayerKind[],
): Promise<Layer> {
  const names = await namesIn(files);
  if (isTurbo(names)) throw unsupported(chainId ?? name, TURBO_PROBLEM);
  const found = await unpackedLayer(files, names, kinds);
  const isOfUnknownFormat =
    found === undefined &&
    names?.length === 1 &&
    kinds.some(({ unpackedName }) => unpackedName === names[0]) &&
    isMarked(kinds, { annotations: labels });
  if (isOfUnknownFormat) throw unsupported(chainId ?? name, UNKNOWN_PROBLEM);
  if (found?.kind.holds === 'blocks') {
    const { lower, fileSystem } = layer.type === 'download' ? layer : UNDESCRIBED;
    return { type: 'blocks', lower, fileSystem, file: found.file };
  }
  if (layer.type === 'download') {
    const problem = `snapshot "${name}" has no overlaybd.commit in it: its annotations announce an overlaybd layer, its blob is another one; convert the image again`;
    throw new ObdError(ErrorCodes.FailedPrecondition, problem);
  }
  const announced = layer.type === 'files' ? layer.announces : undefined;
  if (found === undefined || announced === undefined) return { type: 'files' };
  return { type: 'trace', ...announced, file: found.file };
}

/** The layer in a directory that has one file in it and nothing else; undefined for any other directory. */
async function unpackedLayer(
  directory: string,
  names: readonly string[] | undefined,
  kinds: readonly LayerKind[],
): Promise<UnpackedLayer | undefined> {
  const [file, ...others] = names ?? [];
  if (file === undefined || others.length > 0) return undefined;
  const named = kinds.filter(({ unpackedName = file }) => unpackedName === file);
  const head = named.length === 0 ? undefined : await headOf(join(directory, file));
  if (head === undefined) return undefined;
  const kind = named.find((each) => each.recognizes(head, {}));
  return kind === undefined ? undefined : { kind, file };
}

/** The names in a directory; undefined if there are more than a layer of blocks has. */
async function namesIn(directory: string): Promise<string[] | undefined> {
  const names: string[] = [];
  for await (const { name } of await opendir(directory)) {
    if (names.push(name) > NAMES_MAX) return undefined;
  }
  return names;
}

/** Whether it is an unpacked TurboOCI layer, also one whose client passed no annotations on. */
function isTurbo(names: readonly string[] = []): boolean {
  return names.includes(TURBO_MARK) && names.some((name) => name.endsWith('.fs.meta'));
}

function unsupported(layer: string, problem: string): ObdError {
  const message = `Cannot commit the layer "${layer}": its blob is ${problem}`;
  return new ObdError(ErrorCodes.Unsupported, message);
}

/** The first HEAD_BYTES of a regular file; undefined for anything else. */
async function headOf(path: string): Promise<Uint8Array | undefined> {
  let file: FileHandle;
  try {
    // obd-blockd would serve the target of a link, outside the layer; a pipe would never open.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    // A plain layer may have anything of this name.
    if (systemCode(error) === undefined) throw error;
    return undefined;
  }
  try {
    if (!(await file.stat()).isFile()) return undefined;
    const head = Buffer.alloc(HEAD_BYTES);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return head.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
