/**
 * Progress on stderr: one line that is rewritten on a terminal, and only the final text elsewhere, so that logs stay
 * short. Redrawn at most ten times a second.
 */
import { percentText } from '../byte-text.js';

const REDRAW_MS = 100;

export class ProgressLine {
  readonly #what: string;
  readonly #total: number;
  #drawnAt = 0;

  /** @param total - In the unit of update(); at 0 no share is shown. */
  constructor(what: string, total: number) {
    this.#what = what;
    this.#total = total;
  }

  update(done: number): void {
    const now = performance.now();
    if (!process.stderr.isTTY || now - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = now;
    process.stderr.write(`\r${this.#what}: ${percentText(done, this.#total)}\u001b[K`);
  }

  /** Ends the line with the result. */
  done(result: string): void {
    process.stderr.write(
      `${process.stderr.isTTY ? '\r' : ''}${this.#what}: ${result}${process.stderr.isTTY ? '\u001b[K' : ''}\n`,
    );
  }
}
