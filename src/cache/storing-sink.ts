/** Stores the chunks of a blob that is sent whole: those that reads wait for, and others while the disk has room. */
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { ChunkStore } from './chunk-store.js';
import type { StreamSink } from './whole-stream.js';

/**
 * @param awaited - By chunk, those in flight. It changes while the stream runs.
 * @param onBytes - Called with the length of each run of chunks, before it is stored.
 * @param onStored - Called with each chunk once it has been stored.
 */
export function storingSink(
  store: ChunkStore,
  awaited: Pick<ReadonlyMap<number, unknown>, 'has' | 'size'>,
  onBytes: (bytes: number) => void,
  onStored: (chunk: number) => void,
): StreamSink {
  let unaskedBytes = store.unaskedBytesMax;
  const keepsMore = () => store.hasSpace && unaskedBytes > 0;
  return {
    sizeBytes: store.sizeBytes,
    wants: (chunk) => !store.isCached(chunk) && (awaited.has(chunk) || keepsMore()),
    isAwaited: (chunk) => awaited.has(chunk),
    isUseful: () => keepsMore() || awaited.size > 0,
    agrees: (chunk, bytes) => store.agrees(chunk, bytes),
    isEmpty: () => store.isEmpty(),
    keep: async (first, bytes) => {
      onBytes(bytes.length);
      const end = first + Math.ceil(bytes.length / CHUNK_BYTES);
      for (let chunk = first; chunk < end; chunk++) {
        if (!awaited.has(chunk)) unaskedBytes -= CHUNK_BYTES;
      }
      await store.keep(first, bytes);
      for (let chunk = first; chunk < end; chunk++) onStored(chunk);
    },
    invalidate: (first, end) => store.invalidate(first, end),
    damaged: (chunk) => store.damaged(chunk),
  };
}
