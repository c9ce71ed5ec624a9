/**
 * A layer as an image config names it, in `lowers`: where its blob is, and what it needs besides.
 *
 * The reader keeps unknown keys, so that a description passes through unabridged.
 */
import { isAbsolute } from 'node:path';
import * as z from 'zod';
import { parseBlobUrl } from '../oci/blob-url.js';
import { isDigest } from '../oci/digest.js';

/** Empty strings and zeroes count as absent: overlaybd's producers write either. */
export const optionalPath = z
  .string()
  .refine((text) => text === '' || isAbsolute(text), 'must be an absolute path')
  .optional();
const digest = z
  .string()
  .refine((text) => text === '' || isDigest(text), 'must be sha256: and 64 hexadecimal digits')
  .optional();

export const blobUrl = z
  .string()
  .refine(
    (text) => text === '' || parseBlobUrl(text) !== undefined,
    'must be https://host[:port]/v2/<repository>/blobs',
  );

const lowerKeys = z.object({
  /** A local layer file. */
  file: optionalPath,
  /** May hold the layer, as overlaybd.commit or overlaybd.sealed. */
  dir: optionalPath,
  digest,
  /** Size of the blob in bytes. */
  size: z.number().int().nonnegative().optional(),
  /** Overrides the image's repoBlobUrl for this blob. A key of obd-ts; overlaybd ignores it. */
  repoBlobUrl: blobUrl.optional(),
  /**
   * Name of the layer's kind in the table of src/layers; without it, the first bytes of the blob tell. A key of obd-ts;
   * overlaybd ignores it.
   */
  kind: z.string().optional(),
  /**
   * How many bytes of the blob, from its start, hold the file system's metadata: they are fetched when the image is opened.
   * A key of obd-ts; overlaybd ignores it.
   */
  metadataBytes: z.number().int().nonnegative().optional(),
  /**
   * The hash tree that proves the bytes of the layer: `sha256:` of its header, and where that begins in the blob. A key of
   * obd-ts; overlaybd ignores it.
   */
  hashTree: z
    .object({
      root: z.string().refine(isDigest, 'must be sha256: and 64 hexadecimal digits'),
      offset: z.number().int().positive(),
    })
    .optional(),
  /** TurboOCI: the uncompressed tar of the original layer. */
  targetFile: optionalPath,
  targetDigest: digest,
  gzipIndex: optionalPath,
});

export type LowerLayer = z.infer<typeof lowerKeys>;

export const lowerSchema: z.ZodType<LowerLayer> = lowerKeys.loose();
