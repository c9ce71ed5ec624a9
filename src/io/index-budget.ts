/**
 * One limit on the memory that images claim while they are open: tables of compressed blocks, indexes of layers, and the
 * bitmaps of cached blobs. What an image claims is in headers that its author wrote, so it is charged before the memory
 * is allocated, or the index that fills it is fetched.
 *
 * The amount in use is in shared memory: all threads charge one budget, each by itself. It is counted in KiB, rounded up
 * for each charge, so that it fits 32 bits up to 2 TiB.
 */
import { ErrorCodes, ObdError } from '../errors.js';

const UNIT_BYTES = 1024;
/** What the shared counter can hold. */
export const INDEX_BUDGET_BYTES_MAX = (2 ** 31 - 1) * UNIT_BYTES;

/** What one image charges. */
export interface IndexMemory {
  /**
   * Charges memory that is about to be allocated.
   * @param what - Whose it is, for the message.
   * @throws {ObdError} `Unsupported` if the budget has less left.
   */
  charge(bytes: number, what: string): void;
  /** Returns a charge that was made with the same number of bytes. */
  release(bytes: number): void;
}

/** For programs that open one image and end. */
export const UNLIMITED_INDEX_MEMORY: IndexMemory = { charge() {}, release() {} };

/** The budget as another thread is told of it. */
export interface SharedIndexBudget {
  readonly limitBytes: number;
  readonly used: SharedArrayBuffer;
}

export class IndexBudget {
  readonly shared: SharedIndexBudget;
  readonly #used: Int32Array;

  private constructor(shared: SharedIndexBudget) {
    this.shared = shared;
    this.#used = new Int32Array(shared.used);
  }

  /** A budget of which nothing is used. @param limitBytes - At most {@link INDEX_BUDGET_BYTES_MAX}. */
  static of(limitBytes: number): IndexBudget {
    return new IndexBudget({ limitBytes, used: new SharedArrayBuffer(4) });
  }

  /** The same budget on another thread. */
  static join(shared: SharedIndexBudget): IndexBudget {
    return new IndexBudget(shared);
  }

  get usedBytes(): number {
    return Atomics.load(this.#used, 0) * UNIT_BYTES;
  }

  /**
   * The account of one image.
   *
   * @param mayExceed - Charges are counted and never refused: the device exists already, and refusing to serve it again
   *   would break a container.
   */
  account(mayExceed: boolean): IndexAccount {
    const limit = mayExceed ? Number.POSITIVE_INFINITY : this.shared.limitBytes / UNIT_BYTES;
    return new IndexAccount(this.#used, limit, this.shared.limitBytes);
  }
}

export class IndexAccount implements IndexMemory {
  readonly #used: Int32Array;
  readonly #limitUnits: number;
  readonly #limitBytes: number;
  #ownUnits = 0;

  constructor(used: Int32Array, limitUnits: number, limitBytes: number) {
    this.#used = used;
    this.#limitUnits = limitUnits;
    this.#limitBytes = limitBytes;
  }

  charge(bytes: number, what: string): void {
    const units = unitsOf(bytes);
    for (;;) {
      const used = Atomics.load(this.#used, 0);
      if (used + units > Math.min(this.#limitUnits, INDEX_BUDGET_BYTES_MAX / UNIT_BYTES)) {
        throw this.#refused(bytes, what, used * UNIT_BYTES);
      }
      if (Atomics.compareExchange(this.#used, 0, used, used + units) === used) break;
    }
    this.#ownUnits += units;
  }

  release(bytes: number): void {
    this.#giveBack(unitsOf(bytes));
  }

  /** Returns all that the image has charged. Idempotent. */
  close(): void {
    this.#giveBack(this.#ownUnits);
  }

  #giveBack(units: number): void {
    this.#ownUnits -= units;
    Atomics.sub(this.#used, 0, units);
  }

  #refused(bytes: number, what: string, usedBytes: number): ObdError {
    return new ObdError(
      ErrorCodes.Unsupported,
      `Cannot open ${what}: its index takes ${bytes} bytes of memory, and open images use ${usedBytes} of ${this.#limitBytes}; raise index_memory in obd-blockd's configuration if the image is trusted`,
      { path: what, length: bytes },
    );
  }
}

function unitsOf(bytes: number): number {
  return Math.ceil(bytes / UNIT_BYTES);
}
