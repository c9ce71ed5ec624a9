/** A layer as a stack sees it, in any of the forms of docs/formats/lsmt.md. */
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { Segments } from './segments.js';

export interface Layer {
  /** Its name in messages. */
  readonly label: string;
  /** Bytes of the disk it describes; 0 where it leaves that to the layers below. */
  readonly virtualBytes: number;
  readonly uuid: string;
  readonly parentUuid: string;
  readonly userTag: string;
  /** Which of `sources` has what, by number. */
  readonly segments: Segments;
  readonly sources: readonly RandomAccessFile[];
  /** Holes cannot be told from zeroes in it: it hides everything below, so it must be the bottom. */
  readonly bottomOnly: boolean;
  /** Closes the sources. Idempotent. A stack that has taken the layer over does it instead. */
  close(): void;
}
