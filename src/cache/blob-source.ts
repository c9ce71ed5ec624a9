/**
 * Where the cache gets a blob's bytes: a blob of a registry, or the output of a decoder of another file.
 *
 * The cache calls attempt() with whole chunks, several at once, and retries by itself (blob-fetches.ts). Only a source
 * whose key has the digest of the content may answer with a WholeAnswer: the cache verifies it by that digest.
 */
import type { RangedSource } from '../io/ranged-source.js';
import type { BlobKey } from './blob-key.js';

export interface BlobSource extends RangedSource {
  readonly key: BlobKey;
}
