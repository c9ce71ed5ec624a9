/**
 * One limit on the memory that images claim while they are open: tables of compressed blocks, indexes of layers, and the
 * bitmaps of cached blobs. What an image claims is in headers that its author wrote, so it is charged before the memory
 * is allocated, or the index that fills it is fetched.
 *
 * What an opening has charged may come back soon, by its end or its refusal; what an open image has, may not. So a charge
 * waits where only other openings are in its way, and is refused at once where open images are, or the image itself.
 *
 * The counters are in shared memory: all threads charge one budget, each by itself. They are in KiB, rounded up
 * for each charge, so that they fit 32 bits up to 2 TiB.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';

const UNIT_BYTES = 1024;
/** What the shared counter can hold. */
export const INDEX_BUDGET_BYTES_MAX = (2 ** 31 - 1) * UNIT_BYTES;
/** How long a charge waits for other openings. */
const WAIT_MS = 30_000;
const POLL_MS = 50;
/** In the shared counters: all that is charged, and that of openings alone. */
const USED = 0;
const OPENING = 1;

/** What one image charges. */
export interface IndexMemory {
  /**
   * Charges memory that is about to be allocated; waits for it at most 30 s, while other images are being opened.
   * @param what - Whose it is, for the message.
   * @throws {ObdError} `Unsupported` if the budget has less left.
   */
  charge(bytes: number, what: string): Promise<void>;
  /** Returns a charge, or a part of one. */
  release(bytes: number): void;
}

/** For programs that open one image and end. */
export const UNLIMITED_INDEX_MEMORY: IndexMemory = { async charge() {}, release() {} };

/** An account as another thread is told of it. */
export interface SharedIndexAccount {
  readonly limitBytes: number;
  readonly mayExceed: boolean;
  readonly counters: SharedArrayBuffer;
  readonly own: SharedArrayBuffer;
}

export class IndexBudget {
  readonly #limitBytes: number;
  readonly #counters = new SharedArrayBuffer(8);

  /** A budget of which nothing is used. @param limitBytes - At most {@link INDEX_BUDGET_BYTES_MAX}. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return Atomics.load(new Int32Array(this.#counters), USED) * UNIT_BYTES;
  }

  /**
   * The account of one image.
   *
   * @param mayExceed - Charges are counted and never refused: the device exists already, and refusing to serve it again
   *   would break a container.
   */
  account(mayExceed: boolean): IndexAccount {
    const own = new SharedArrayBuffer(4);
    const limitBytes = this.#limitBytes;
    return new IndexAccount({ limitBytes, mayExceed, counters: this.#counters, own });
  }
}

/** Opened and closed by its owner; another thread makes its own of {@link shared}, and only charges and releases. */
export class IndexAccount implements IndexMemory {
  readonly shared: SharedIndexAccount;
  readonly #counters: Int32Array;
  readonly #own: Int32Array;
  readonly #limitUnits: number;
  #isOpening = true;

  constructor(shared: SharedIndexAccount) {
    this.shared = shared;
    this.#counters = new Int32Array(shared.counters);
    this.#own = new Int32Array(shared.own);
    const limitBytes = shared.mayExceed ? INDEX_BUDGET_BYTES_MAX : shared.limitBytes;
    this.#limitUnits = limitBytes / UNIT_BYTES;
  }

  async charge(bytes: number, what: string, waitMs = WAIT_MS): Promise<void> {
    const units = unitsOf(bytes);
    const endMs = performance.now() + waitMs;
    while (!this.#take(units)) {
      const usedUnits = Atomics.load(this.#counters, USED);
      const ownUnits = Atomics.load(this.#own, 0);
      const othersOpening = Atomics.load(this.#counters, OPENING) - ownUnits;
      const isHopeless = usedUnits - othersOpening + units > this.#limitUnits;
      if (isHopeless || performance.now() > endMs) {
        throw this.#refused(bytes, what, ownUnits, usedUnits);
      }
      await sleep(POLL_MS);
    }
  }

  release(bytes: number): void {
    this.#giveBack(unitsOf(bytes));
  }

  /** The image is open: what it has charged stays until close(). */
  opened(): void {
    if (!this.#isOpening) return;
    this.#isOpening = false;
    Atomics.sub(this.#counters, OPENING, Atomics.load(this.#own, 0));
  }

  /** Returns all that the image has charged. Idempotent. */
  close(): void {
    this.#giveBack(Atomics.load(this.#own, 0));
  }

  /** In such an order that another thread may take a charge for one of an opening, and waits, but never the reverse. */
  #take(units: number): boolean {
    Atomics.add(this.#counters, OPENING, units);
    for (;;) {
      const used = Atomics.load(this.#counters, USED);
      if (used + units > this.#limitUnits) {
        Atomics.sub(this.#counters, OPENING, units);
        return false;
      }
      if (Atomics.compareExchange(this.#counters, USED, used, used + units) === used) break;
    }
    Atomics.add(this.#own, 0, units);
    return true;
  }

  #giveBack(units: number): void {
    Atomics.sub(this.#own, 0, units);
    Atomics.sub(this.#counters, USED, units);
    if (this.#isOpening) Atomics.sub(this.#counters, OPENING, units);
  }

  #refused(bytes: number, what: string, ownUnits: number, usedUnits: number): ObdError {
    const needed = bytes + ownUnits * UNIT_BYTES;
    const others = (usedUnits - ownUnits) * UNIT_BYTES;
    return new ObdError(
      ErrorCodes.Unsupported,
      `Cannot open ${what}: the indexes of the image take ${needed} bytes of memory, and other images use ${others} of ${this.shared.limitBytes}; raise index_memory in obd-blockd's configuration if the image is trusted`,
      { path: what, length: needed },
    );
  }
}

function unitsOf(bytes: number): number {
  return Math.ceil(bytes / UNIT_BYTES);
}
