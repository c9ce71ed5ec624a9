/** What the fetches of a blob need of the place where its chunks go. */
import type { StreamSink } from './whole-stream.js';

export interface ChunkStore extends Omit<StreamSink, 'wants' | 'isAwaited' | 'isUseful'> {
  readonly registry: string;
  readonly chunks: number;
  /** Whether there is room to keep more than what is asked for. */
  readonly roomy: boolean;
  /** Of a blob that comes whole: how much may be kept that nobody waits for. */
  readonly unaskedBytesMax: number;
  /** Whether the chunk can be read now. */
  isHere(chunk: number): boolean;
  /** Stores or holds whole chunks from `first` on. Never fails: what cannot be stored is held. */
  keep(first: number, bytes: Uint8Array): Promise<void>;
}
