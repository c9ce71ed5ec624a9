/** A blob's source in memory, like a registry: lets tests count, delay, refuse and damage fetches. */
import type { BlobKey } from '../../src/cache/blob-key.js';
import type { BlobSource } from '../../src/cache/blob-source.js';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import type {
  AttemptOptions,
  RangeFill,
  Urgency,
  WholeAnswer,
} from '../../src/io/ranged-source.js';
import { sha256Of } from '../../src/oci/digest.js';

export interface FetchedRange {
  readonly offset: number;
  readonly length: number;
}

export class BlobDouble implements BlobSource {
  readonly label: string;
  readonly key: BlobKey;
  readonly requests: FetchedRange[] = [];
  /** The urgency of each request. */
  readonly urgencies: Urgency[] = [];
  /** The most requests that were in flight at once. */
  parallelMax = 0;
  /** Called before each answer: may wait, and may throw. */
  before: (request: FetchedRange, signal: AbortSignal | undefined) => Promise<void> =
    async () => {};
  /** Called after `before` with a function that makes the first bytes of the answer arrive; the rest follows it. */
  arriving: (
    request: FetchedRange,
    arrived: (bytes: number) => void,
    signal: AbortSignal | undefined,
  ) => Promise<void> = async () => {};
  /** May change the bytes of an answer. */
  damage: (target: Uint8Array, request: FetchedRange) => void = () => {};
  /** May answer with a stream of the whole blob in place of a range. */
  whole: () => WholeAnswer | undefined = () => undefined;
  readonly #bytes: Uint8Array;
  #parallel = 0;

  /** @param digest - The digest of other bytes makes a registry that lies. */
  constructor(
    bytes: Uint8Array,
    repository = 'registry.example/app',
    digest: string = sha256Of(bytes),
  ) {
    this.#bytes = bytes;
    const origin = repository.slice(0, repository.indexOf('/'));
    this.key = { origin, digest, sizeBytes: bytes.length };
    this.label = `${digest} of ${repository}`;
  }

  get digest(): string {
    return this.key.digest;
  }

  get sizeBytes(): number {
    return this.key.sizeBytes;
  }

  get requestedBytes(): number {
    return this.requests.reduce((sum, { length }) => sum + length, 0);
  }

  async attempt(
    fill: RangeFill,
    { signal, urgency = 'demand' }: AttemptOptions = {},
  ): Promise<WholeAnswer | undefined> {
    const target = fill.bytes.subarray(fill.filled);
    const offset = fill.offset + fill.filled;
    if (!(offset >= 0 && offset + target.length <= this.#bytes.length)) {
      throw new RangeError(`[${offset}, ${offset + target.length}) is outside ${this.label}`);
    }
    const request = { offset, length: target.length };
    this.requests.push(request);
    this.urgencies.push(urgency);
    this.#parallel++;
    this.parallelMax = Math.max(this.parallelMax, this.#parallel);
    try {
      await new Promise(setImmediate);
      await this.before(request, signal);
      const whole = this.whole();
      if (whole !== undefined) return whole;
      target.set(this.#bytes.subarray(offset, offset + target.length));
      const arrived = (bytes: number) => {
        fill.filled += bytes;
        fill.progressed();
      };
      await this.arriving(request, arrived, signal);
      this.damage(target, request);
      fill.filled = fill.bytes.length;
      return undefined;
    } finally {
      this.#parallel--;
    }
  }
}

/** For `before`: hangs until the request is aborted. */
export async function stall(
  _request: FetchedRange,
  signal: AbortSignal | undefined,
): Promise<void> {
  await new Promise<void>((_resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason));
  });
}

/** For `before`: the registry is unavailable. */
export async function unavailable(): Promise<void> {
  throw new ObdError(ErrorCodes.Unavailable, 'Cannot read: the registry double is down');
}

/** For `before`: the registry lacks the blob. */
export async function gone(): Promise<void> {
  throw new ObdError(ErrorCodes.NotFound, 'Cannot read: the registry double does not have it');
}

/** `length` bytes in which no two places look alike, so that tests notice a byte from elsewhere. */
export function distinctBytes(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(Math.ceil(length / 4) * 4);
  for (let i = 0; i < bytes.length; i += 4) {
    bytes.writeUInt32LE(Math.imul(i + seed * 0x10001, 2654435761) >>> 0, i);
  }
  return bytes.subarray(0, length);
}
