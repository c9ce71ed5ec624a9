/**
 * Records what a start reads of a disk: offset, length and begin of each read, in their order, until START_MS_MAX after the first one
 * or until QUIET_MS without one, or READS_MAX reads. A client may want it to end by a call instead.
 *
 * The kernel reads nothing twice while its page cache has it, so only the first start on a device shows all that a start needs.
 */
import type { RequestKind, RequestObserver } from '../blockdev/request-observer.js';

const START_MS_MAX = 60_000;
const QUIET_MS = 10_000;
/** A start of Python makes 4,000, one of Tomcat 10,000. */
const READS_MAX = 32_768;
const LOOK_MS = 1_000;

/** Offset and length are in bytes. */
export interface DiskRead {
  readonly offset: number;
  readonly length: number;
  /** Since the first read. */
  readonly ms: number;
}

export class ReadRecorder implements RequestObserver {
  readonly #onEnd: (reads: readonly DiskRead[]) => void;
  readonly #untilQuiet: boolean;
  readonly #timer: NodeJS.Timeout;
  /** Made at the first read, so that no further one allocates. */
  #reads: Float64Array | undefined;
  #count = 0;
  #countSeen = 0;
  #startedMs = 0;
  #quietSinceMs = 0;
  #isOver = false;

  /**
   * @param onEnd - Called once, if there were reads.
   * @param untilQuiet - Whether it ends by time.
   */
  constructor(onEnd: (reads: readonly DiskRead[]) => void, untilQuiet: boolean) {
    this.#onEnd = onEnd;
    this.#untilQuiet = untilQuiet;
    this.#timer = setInterval(() => this.#look(), LOOK_MS).unref();
  }

  started(): void {}

  /** Plain parameters, so that no local read allocates an array of them. */
  ended(
    kind: RequestKind,
    offset: number,
    length: number,
    durationMs: number,
    _servedFrom: unknown,
    error: unknown,
  ): void {
    if (kind !== 'read' || error !== undefined || this.#count === READS_MAX) return;
    this.#reads ??= new Float64Array(3 * READS_MAX);
    this.#reads[3 * this.#count] = offset;
    this.#reads[3 * this.#count + 1] = length;
    this.#reads[3 * this.#count + 2] = performance.now() - durationMs;
    this.#count++;
  }

  /** Ends the recording now, for a device that goes. Idempotent. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearInterval(this.#timer);
    const reads = this.#reads;
    if (reads === undefined) return;
    const all = Array.from({ length: this.#count }, (_, i) => ({
      offset: reads[3 * i]!,
      length: reads[3 * i + 1]!,
      ms: reads[3 * i + 2]!,
    }));
    // They were noted as they ended, and a cold start waits for some of them longer than for others.
    all.sort((a, b) => a.ms - b.ms);
    const firstMs = all[0]?.ms ?? 0;
    this.#onEnd(all.map((read) => ({ ...read, ms: Math.round(read.ms - firstMs) })));
  }

  #look(): void {
    const nowMs = performance.now();
    if (this.#count > this.#countSeen) {
      this.#startedMs ||= nowMs;
      this.#quietSinceMs = nowMs;
    }
    this.#countSeen = this.#count;
    if (this.#count === 0) return;
    const isOver = nowMs - this.#startedMs > START_MS_MAX || nowMs - this.#quietSinceMs > QUIET_MS;
    if ((isOver && this.#untilQuiet) || this.#count === READS_MAX) this.end();
  }
}
