/** What a layer is to a stack, whichever of the forms of docs/formats/lsmt.md it is stored in. */
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { Segments } from './segments.js';

export interface Layer {
  /** What to call it in a message. */
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
