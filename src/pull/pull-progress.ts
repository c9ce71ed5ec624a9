/** Interface through which a pull reports its progress. */

/** The way in which a layer got its snapshot. */
export type LayerFate = 'lazy' | 'unpacked' | 'present';

export interface PullProgress {
  /** @param number - From 1, bottom first. */
  layerStarted(number: number, layers: number, digest: string, sizeBytes: number): void;
  bytesFetched(bytes: number): void;
  layerDone(fate: LayerFate, sizeBytes: number): void;
  warning(text: string): void;
}
