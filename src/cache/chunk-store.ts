/** The store that the fetches of a blob write its chunks to. */
import type { StreamSink } from './whole-stream.js';

export interface ChunkStore extends Omit<StreamSink, 'wants' | 'isAwaited' | 'isUseful'> {
  readonly registry: string;
  readonly chunks: number;
  /** Whether there is room to keep more chunks than requested. */
  readonly roomy: boolean;
  /** How many bytes that no read waits for may be kept of a blob that is sent whole. */
  readonly unaskedBytesMax: number;
  /** Whether the chunk can be read now. */
  isHere(chunk: number): boolean;
  /** Stores or holds whole chunks from `first` on. Never fails: chunks that cannot be stored are held in memory. */
  keep(first: number, bytes: Uint8Array): Promise<void>;
}
