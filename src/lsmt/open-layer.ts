/**
 * Opens a layer blob in whichever dress it comes: a tar around it or none, a ZFile or plain.
 *
 * The one file of this folder that knows the ZFile and the tar: a layer is the same thing whether
 * compressed or not, and everybody who opens one wants this.
 */
import { refetchWhileCorrupt } from '../io/format-error.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { isZFile } from '../zfile/is-zfile.js';
import { openTarWindow } from '../zfile/tar-wrapper.js';
import { ZFileReader } from '../zfile/zfile-reader.js';
import { CommittedLayer } from './committed-layer.js';

/** Bytes that tell the dress: what a refetch must replace where none fits. */
const OPENING_BYTES = 4096;

/**
 * @param source - The blob. The layer takes it over; after an error it is still the caller's.
 * @param decoded - The cache that all files of this thread share.
 * @throws {ObdError} `Corrupt` naming file, offset and rule, `Unsupported`, and what reading throws.
 */
export async function openLayer(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
): Promise<CommittedLayer> {
  return await retrying(source, async () => CommittedLayer.open(await undress(source, decoded)));
}

/**
 * The same for a TurboOCI layer, whose file contents are in `target`: the uncompressed tar of the
 * original layer.
 */
export async function openTurboLayer(
  source: RandomAccessFile,
  target: RandomAccessFile,
  decoded: DecodedBlocks,
): Promise<CommittedLayer> {
  return await retrying(source, async () =>
    CommittedLayer.openTurbo(await undress(source, decoded), target),
  );
}

/** A damaged tar header passes for no tar, so that what is then found wrong is found elsewhere. */
async function retrying<T>(source: RandomAccessFile, open: () => Promise<T>): Promise<T> {
  const opening = Math.min(OPENING_BYTES, source.sizeBytes);
  return await refetchWhileCorrupt(source, 0, opening, open);
}

async function undress(source: RandomAccessFile, decoded: DecodedBlocks) {
  const payload = await openTarWindow(source);
  return (await isZFile(payload)) ? await ZFileReader.open(payload, decoded) : payload;
}
