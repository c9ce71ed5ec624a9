/** Prints the progress of `obdctl rpull`: a line per layer; on a terminal also the share of a download. */
import { byteText } from '../../byte-text.js';
import type { LayerFate, PullProgress } from '../../pull/pull-progress.js';
import { ProgressLine } from '../progress-line.js';

export class RpullProgress implements PullProgress {
  /** Documents and layers that the registry sent. */
  fetchedBytes = 0;
  readonly #counts: Record<LayerFate, number> = { lazy: 0, unpacked: 0, present: 0 };
  #line: ProgressLine | undefined;
  #lineBytes = 0;

  layerStarted(number: number, layers: number, digest: string, sizeBytes: number): void {
    const short = digest.slice(0, 'sha256:'.length + 12);
    this.#line = new ProgressLine(`Layer ${number}/${layers} ${short}`, sizeBytes);
    this.#lineBytes = 0;
  }

  bytesFetched(bytes: number): void {
    this.fetchedBytes += bytes;
    this.#lineBytes += bytes;
    this.#line?.update(this.#lineBytes);
  }

  layerDone(fate: LayerFate, sizeBytes: number): void {
    this.#counts[fate]++;
    const text = {
      lazy: `lazy, ${byteText(sizeBytes)} stay in the registry`,
      unpacked: `downloaded and unpacked, ${byteText(sizeBytes)}`,
      present: 'already here',
    };
    this.#line?.done(text[fate]);
    this.#line = undefined;
  }

  /** Removes a line that will not be completed. */
  abandon(): void {
    if (this.#line !== undefined && process.stderr.isTTY) process.stderr.write('\r\u001b[K');
    this.#line = undefined;
  }

  warning(text: string): void {
    process.stderr.write(`${process.stderr.isTTY ? '\r\u001b[K' : ''}Warning: ${text}\n`);
  }

  /** "3 layers: 2 lazy, 1 downloaded" */
  layersText(): string {
    const { lazy, unpacked, present } = this.#counts;
    const all = lazy + unpacked + present;
    const parts = [
      lazy > 0 ? `${lazy} lazy` : '',
      unpacked > 0 ? `${unpacked} downloaded` : '',
      present > 0 ? `${present} already here` : '',
    ].filter((part) => part !== '');
    return `${all} ${all === 1 ? 'layer' : 'layers'}: ${parts.join(', ')}`;
  }
}
