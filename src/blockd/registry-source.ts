/** A registry's blob as a source of the cache: the registry is its origin. */
import type { BlobSource } from '../cache/blob-source.js';
import type { RemoteBlobRanges } from '../registry/blob-ranges.js';

export function registrySource(ranges: RemoteBlobRanges): BlobSource {
  const { registry, digest, sizeBytes, label } = ranges;
  return {
    key: { origin: registry, digest, sizeBytes },
    label,
    attempt: (fill, options) => ranges.attempt(fill, options),
    invalidated: (offset, length) => ranges.invalidated(offset, length),
  };
}
