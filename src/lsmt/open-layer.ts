/**
 * Opens a layer blob in whichever dress it comes: a tar around it or none, a ZFile or plain.
 *
 * The one file of this folder that knows the ZFile and the tar: a layer is the same thing whether
 * compressed or not, and everybody who opens one wants this.
 */
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { isZFile } from '../zfile/is-zfile.js';
import { openTarWindow } from '../zfile/tar-wrapper.js';
import { ZFileReader } from '../zfile/zfile-reader.js';
import { CommittedLayer } from './committed-layer.js';
import { hasLayerMagic } from './layer-header.js';

/** The tar's headers and the magic of what is inside: what is fetched again where nothing fits. */
const OPENING_BYTES = 2048;
const MAGIC_BYTES = 24;

/**
 * @param source - The blob. The layer takes it over; after an error it is still the caller's.
 * @param decoded - The cache that all files of this thread share.
 * @throws {ObdError} `Corrupt` naming file, offset and rule, `Unsupported`, and what reading throws.
 */
export async function openLayer(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
): Promise<CommittedLayer> {
  return await CommittedLayer.open(await undress(source, decoded));
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
  return await CommittedLayer.openTurbo(await undress(source, decoded), target);
}

/**
 * What is inside tar and ZFile. A damaged tar header passes for no tar, and what follows then for no
 * layer: so it takes the whole opening to say that it is none, and all of it is fetched again.
 */
async function undress(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
): Promise<RandomAccessFile> {
  const openingBytes = Math.min(OPENING_BYTES, source.sizeBytes);
  const { payload, compressed } = await refetchWhileCorrupt(source, 0, openingBytes, async () => {
    const payload = await openTarWindow(source);
    if (await isZFile(payload)) return { payload, compressed: true };
    const opening = Buffer.alloc(MAGIC_BYTES);
    await readFully(payload, opening, 0);
    if (hasLayerMagic(opening)) return { payload, compressed: false };
    throw corrupt(source, 0, 'neither a ZFile nor a layer, nor a tar around one');
  });
  return compressed ? await ZFileReader.open(payload, decoded) : payload;
}
