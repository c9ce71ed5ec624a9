/** The store that the fetches of a blob write its chunks to. */
import type { BlobKey } from './blob-key.js';
import type { StreamSink } from './whole-stream.js';

export interface ChunkStore extends Omit<StreamSink, 'wants' | 'isAwaited' | 'isUseful'> {
  readonly key: BlobKey;
  readonly chunks: number;
  /** Whether there is space for more chunks than requested. */
  readonly hasSpace: boolean;
  /** How many bytes have room without evicting chunks of open blobs. */
  readonly freeBytes: number;
  /** Limit for bytes that no read waits for, of a blob that is sent whole. */
  readonly unaskedBytesMax: number;
  /** Whether the chunk was read since it was fetched. */
  isRead(chunk: number): boolean;
  /** Whether the chunk can be read now. */
  isCached(chunk: number): boolean;
  /** Stores whole chunks from `first` on. Never fails: chunks without space on the disk go to memory. */
  keep(first: number, bytes: Uint8Array): Promise<void>;
}
