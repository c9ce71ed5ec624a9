/**
 * Shows a conversion on standard error: a bar on a terminal, a line per layer otherwise.
 *
 * The bar counts bytes of the source's blobs, the only total known beforehand. The bytes sent are shown next to it,
 * since sending runs behind and can be the slower part.
 */
import { Presets, SingleBar } from 'cli-progress';
import { byteText } from '../../byte-text.js';
import type { ConversionProgress, ConvertedBlob } from '../../convert/progress.js';

const FORMAT = '{bar} {percentage}% | layer {layer}/{layers} | read {read} | sent {sent}';

export class ProgressDisplay implements ConversionProgress {
  readonly #output: NodeJS.WriteStream;
  readonly #startedMs = performance.now();
  #bar: SingleBar | undefined;
  #layers = 0;
  #sourceBytes = 0;
  #readBytes = 0;
  #sentBytes = 0;
  #toSendBytes = 0;
  #convertedFrom = 0;
  #convertedTo = 0;

  constructor(output: NodeJS.WriteStream) {
    this.#output = output;
  }

  imageStarted(layers: number, sourceBytes: number, platform: string | undefined): void {
    this.stop();
    this.#layers = layers;
    this.#sourceBytes = sourceBytes;
    this.#readBytes = 0;
    this.#sentBytes = 0;
    this.#toSendBytes = 0;
    const what = `${layers} ${layers === 1 ? 'layer' : 'layers'}, ${byteText(sourceBytes)}`;
    this.#line(`Converting ${platform === undefined ? '' : `${platform}: `}${what}`);
    if (!this.#output.isTTY) return;
    const options = {
      stream: this.#output,
      format: FORMAT,
      hideCursor: true,
      clearOnComplete: true,
    };
    this.#bar = new SingleBar(options, Presets.shades_classic);
    this.#bar.start(sourceBytes, 0, { layer: 1, layers, read: this.#read(), sent: this.#sent() });
  }

  bytesRead(bytes: number): void {
    this.#readBytes += bytes;
    this.#bar?.update(this.#readBytes, { read: this.#read() });
  }

  layerConverted(number: number, { sizeBytes }: ConvertedBlob): void {
    this.#toSendBytes += sizeBytes;
    const layer = Math.min(number + 1, this.#layers);
    this.#bar?.update({ layer, sent: this.#sent() });
  }

  bytesSent(bytes: number): void {
    this.#sentBytes = Math.min(this.#sentBytes + bytes, this.#toSendBytes);
    this.#bar?.update({ sent: this.#sent() });
  }

  layerDone(number: number, blob: ConvertedBlob, uploaded: boolean): void {
    this.#convertedFrom += blob.sourceBytes;
    this.#convertedTo += blob.sizeBytes;
    if (!uploaded) this.bytesSent(blob.sizeBytes);
    if (this.#bar !== undefined) return;
    const sizes = `${byteText(blob.sourceBytes)} -> ${byteText(blob.sizeBytes)}`;
    const fate = uploaded ? 'written' : 'already there';
    this.#line(`Layer ${number}/${this.#layers} ${blob.digest} ${sizes}, ${fate}`);
  }

  warning(message: string): void {
    this.#line(`Warning: ${message}`);
  }

  finished(destination: string): void {
    this.stop();
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1);
    const sizes = `${byteText(this.#convertedFrom)} -> ${byteText(this.#convertedTo)}`;
    this.#line(`Wrote ${destination}: ${sizes} in ${seconds} s`);
  }

  /** Removes the bar; lines may follow. Idempotent. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #read(): string {
    return `${byteText(this.#readBytes)} of ${byteText(this.#sourceBytes)}`;
  }

  #sent(): string {
    return `${byteText(this.#sentBytes)} of ${byteText(this.#toSendBytes)}`;
  }

  #line(text: string): void {
    this.#output.write(`${this.#output.isTTY ? '\r\u001b[K' : ''}${text}\n`);
  }
}
