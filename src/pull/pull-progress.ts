/** What a pull reports while it works. */

/** How a layer's snapshot came to be there. */
export type LayerFate = 'lazy' | 'unpacked' | 'present';

export interface PullProgress {
  /** @param number - From 1, bottom first. */
  layerStarted(number: number, layers: number, digest: string, sizeBytes: number): void;
  bytesFetched(bytes: number): void;
  layerDone(fate: LayerFate, sizeBytes: number): void;
  warning(text: string): void;
}
