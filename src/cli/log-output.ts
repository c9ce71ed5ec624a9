/**
 * Writes log lines to a descriptor without ever throwing, blocking or buffering.
 *
 * A line that the descriptor does not take now (a full disk, a pipe that is full or has no reader) is dropped and
 * counted; the count is reported once lines are accepted again. Only the rest of a line that was written in part is
 * kept, so that lines stay whole. Memory is bounded by one line.
 *
 * A pipe or socket must be non-blocking. Node makes it so when it first opens `process.stderr`.
 */
import { constants, openSync, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { systemCode } from '../errors.js';

/** Interval between attempts to report dropped lines. */
const REPORT_MS = 1_000;
/** Longer lines are cut: 64 KiB hold any error of ours with its causes. */
const LINE_CHARS_MAX = 64 << 10;

export class LogOutput {
  readonly #fd: number;
  readonly #reportDropped: (lines: number) => string;
  /** The unwritten rest of a partly written line. */
  #rest: Uint8Array = Buffer.alloc(0);
  #dropped = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param reportDropped - Makes the line that reports how many lines were dropped. */
  constructor(fd: number, reportDropped: (lines: number) => string) {
    this.#fd = isatty(fd) ? reopenedTerminal(fd) : fd;
    this.#reportDropped = reportDropped;
  }

  /** @param line - Ends in a line feed. */
  write(line: string): void {
    const cut = line.length > LINE_CHARS_MAX ? `${line.slice(0, LINE_CHARS_MAX)}\n` : line;
    if (this.#put(cut)) return;
    this.#dropped++;
    this.#timer ??= setInterval(() => this.#put(''), REPORT_MS).unref();
  }

  /** Writes the rest of a torn line, the report of dropped lines, then `line`. Returns false if `line` was not taken. */
  #put(line: string): boolean {
    if (this.#rest.length > 0) {
      const written = this.#tryWrite(this.#rest);
      this.#rest = this.#rest.subarray(written);
      if (this.#rest.length > 0) return false;
    }
    const report = this.#dropped > 0 ? this.#reportDropped(this.#dropped) : '';
    const bytes = Buffer.from(report + line);
    // One write for both: single lines would fill space that is too small for the report.
    const written = this.#tryWrite(bytes);
    if (written === 0 && bytes.length > 0) return false;
    this.#rest = bytes.subarray(written);
    this.#dropped = 0;
    clearInterval(this.#timer);
    this.#timer = undefined;
    return true;
  }

  #tryWrite(bytes: Uint8Array): number {
    try {
      return writeSync(this.#fd, bytes);
    } catch (error) {
      // Completes the torn line: the next reader of a FIFO must not begin within a line.
      if (systemCode(error) === 'EPIPE') this.#rest = Buffer.alloc(0);
      return 0;
    }
  }
}

/** A non-blocking descriptor of our own: a terminal that was stopped (Ctrl-S) blocks, and others share `fd`. */
function reopenedTerminal(fd: number): number {
  const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
  try {
    return openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    return fd;
  }
}
