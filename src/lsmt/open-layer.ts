/**
 * Opens a layer blob in whichever dress it comes: a tar around it or none, a ZFile or plain.
 *
 * The one file of this folder that knows the ZFile and the tar: a layer is the same thing whether
 * compressed or not, and everybody who opens one wants this.
 */
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { type IndexMemory, UNLIMITED_INDEX_MEMORY } from '../io/index-budget.js';
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
 * @param source - The blob. The layer takes it over; after an error it is closed.
 * @param decoded - The cache that all files of this thread share.
 * @param memory - Charged with what the headers claim, before any index is read.
 * @throws {ObdError} `Corrupt` naming file, offset and rule, `Unsupported`, and what reading throws.
 */
export async function openLayer(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
  memory: IndexMemory = UNLIMITED_INDEX_MEMORY,
): Promise<CommittedLayer> {
  return await openInside(source, decoded, memory, (inside) => CommittedLayer.open(inside, memory));
}

/**
 * The same for a TurboOCI layer, whose file contents are in `target`: the uncompressed tar of the
 * original layer, and the caller's after an error.
 */
export async function openTurboLayer(
  source: RandomAccessFile,
  target: RandomAccessFile,
  decoded: DecodedBlocks,
  memory: IndexMemory = UNLIMITED_INDEX_MEMORY,
): Promise<CommittedLayer> {
  return await openInside(source, decoded, memory, (inside) =>
    CommittedLayer.openTurbo(inside, target, memory),
  );
}

/** After an error everything is closed, so that the table of a ZFile is freed now. */
async function openInside(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
  memory: IndexMemory,
  open: (inside: RandomAccessFile) => Promise<CommittedLayer>,
): Promise<CommittedLayer> {
  let opened = source;
  try {
    opened = await undress(source, decoded, memory);
    return await open(opened);
  } catch (error) {
    opened.close();
    throw error;
  }
}

/**
 * What is inside tar and ZFile. A damaged tar header passes for no tar, and what follows then for no
 * layer: so it takes the whole opening to say that it is none, and all of it is fetched again.
 */
async function undress(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
  memory: IndexMemory,
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
  return compressed ? await ZFileReader.open(payload, decoded, memory) : payload;
}
