/**
 * Writes overlaybd's acceleration layer: a tar with one file, `trace`, which has the reads of a start
 * (docs/formats/trace.md, "In an image"). The same reads give the same bytes.
 */
import { TAR_BLOCK_BYTES } from '../io/block-sizes.js';
import { sha256Of } from '../oci/digest.js';
import type { Descriptor } from '../oci/manifest.js';
import { OCI_LAYER_TAR } from '../oci/media-types.js';
import {
  ACCELERATION_LAYER_ANNOTATION,
  BLOB_DIGEST_ANNOTATION,
  BLOB_FS_TYPE_ANNOTATION,
  BLOB_SIZE_ANNOTATION,
  NATIVE_VERSION,
  VERSION_ANNOTATION,
} from './overlaybd-annotations.js';
import { encodeTrace, type TracedRead } from './read-trace.js';

const CHECKSUM_AT = 148;
const CHECKSUM_BYTES = 8;

export interface TraceLayer {
  /** As the manifest lists it. Its digest is the layer's diff ID, too: the tar is not compressed. */
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
}

/**
 * @param reads - At most TRACED_READS_MAX.
 * @param fileSystem - The disk's, as the layer below has it; empty if that does not say.
 */
export function traceLayer(reads: readonly TracedRead[], fileSystem: string): TraceLayer {
  const trace = encodeTrace(reads);
  const padding = Buffer.alloc(-trace.length & (TAR_BLOCK_BYTES - 1));
  const end = Buffer.alloc(2 * TAR_BLOCK_BYTES);
  const bytes = Buffer.concat([header(trace.length), trace, padding, end]);
  const digest = sha256Of(bytes);
  const size = bytes.length;
  const annotations = {
    [VERSION_ANNOTATION]: NATIVE_VERSION,
    [BLOB_DIGEST_ANNOTATION]: digest,
    [BLOB_SIZE_ANNOTATION]: String(size),
    [ACCELERATION_LAYER_ANNOTATION]: 'yes',
    ...(fileSystem !== '' && { [BLOB_FS_TYPE_ANNOTATION]: fileSystem }),
  };
  return { descriptor: { mediaType: OCI_LAYER_TAR, digest, size, annotations }, bytes };
}

/** A ustar header of root's file `trace`, mode 0444, without a time. */
function header(size: number): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_BYTES);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`;
  block.write('trace', 0, 'latin1');
  block.write(octal(0o444, 7), 100, 'latin1');
  block.write(octal(0, 7), 108, 'latin1');
  block.write(octal(0, 7), 116, 'latin1');
  block.write(octal(size, 11), 124, 'latin1');
  block.write(octal(0, 11), 136, 'latin1');
  block.write('0', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  // The sum counts its own field as blanks.
  block.fill(' ', CHECKSUM_AT, CHECKSUM_AT + CHECKSUM_BYTES);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)} `, CHECKSUM_AT, 'latin1');
  return block;
}
