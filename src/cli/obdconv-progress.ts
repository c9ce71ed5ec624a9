/**
 * Shows a conversion on standard error: a bar on a terminal, a line per layer otherwise.
 *
 * The bar counts bytes of the source's blobs, the one quantity known beforehand.
 */
import { Presets, SingleBar } from 'cli-progress';
import type { ConversionProgress, ConvertedBlob } from '../convert/progress.js';

const MIB = 1 << 20;

export class ProgressDisplay implements ConversionProgress {
  readonly #output: NodeJS.WriteStream;
  #bar: SingleBar | undefined;
  #layers = 0;
  #sourceBytes = 0;
  #readBytes = 0;

  constructor(output: NodeJS.WriteStream) {
    this.#output = output;
  }

  imageStarted(layers: number, sourceBytes: number, platform: string | undefined): void {
    this.stop();
    this.#layers = layers;
    this.#sourceBytes = sourceBytes;
    this.#readBytes = 0;
    const what = `${layers} ${layers === 1 ? 'layer' : 'layers'}, ${mebibytes(sourceBytes)}`;
    this.#line(`Converting ${platform === undefined ? '' : `${platform}: `}${what}`);
    if (!this.#output.isTTY) return;
    const format =
      '{bar} {percentage}% | {read} of {all} | layer {layer}/{layers} | {eta_formatted}';
    const options = { stream: this.#output, format, hideCursor: true, clearOnComplete: true };
    this.#bar = new SingleBar(options, Presets.shades_classic);
    const shown = { read: mebibytes(0), all: mebibytes(sourceBytes), layer: 1, layers };
    this.#bar.start(sourceBytes, 0, shown);
  }

  bytesRead(bytes: number): void {
    this.#readBytes = Math.min(this.#readBytes + bytes, this.#sourceBytes);
    this.#bar?.update(this.#readBytes, { read: mebibytes(this.#readBytes) });
  }

  layerDone(number: number, blob: ConvertedBlob, uploaded: boolean): void {
    this.#bar?.update({ layer: Math.min(number + 1, this.#layers) });
    if (this.#bar !== undefined) return;
    const sizes = `${mebibytes(blob.sourceBytes)} -> ${mebibytes(blob.sizeBytes)}`;
    const fate = uploaded ? 'written' : 'already there';
    this.#line(`Layer ${number}/${this.#layers} ${blob.digest} ${sizes}, ${fate}`);
  }

  warning(message: string): void {
    this.#line(`Warning: ${message}`);
  }

  /** Takes the bar away; lines may follow. Idempotent. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #line(text: string): void {
    this.#output.write(`${this.#output.isTTY ? '\r\u001b[K' : ''}${text}\n`);
  }
}

function mebibytes(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}
