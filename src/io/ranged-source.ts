/**
 * Bytes that are read by ranges, one attempt at a time: a registry's blob, or the output of a decoder.
 *
 * The caller decides on retries and their deadline. It keeps one RangeFill for all attempts at a range, so that a retry
 * requests only the missing bytes.
 */
import type { ObdError } from '../errors.js';
import { SpeedFloor } from './speed-floor.js';

/**
 * How urgent a range is. `demand`: a read waits for it. `prefetch`: the next reads of a sweep may want it, so it must not
 * delay any demand. `background`: some later read may want it, so it must not delay either.
 */
export type Urgency = 'demand' | 'prefetch' | 'background';

/** The progress of one range through all attempts at it. */
export class RangeFill {
  readonly bytes: Uint8Array;
  /** Position of `bytes` in the source, in bytes. */
  readonly offset: number;
  /** How many of `bytes` have arrived; bytes from a failed attempt stay valid. */
  filled = 0;
  /** A source may call it each time that `filled` has grown: readers of the first bytes then do not wait for the last. */
  progressed: () => void = () => {};
  /** Tells a source with connections when to leave a slow one. */
  readonly floor: SpeedFloor;

  /** @param floor - The speed floor of earlier attempts, if there were any. */
  constructor(bytes: Uint8Array, offset: number, floor = new SpeedFloor()) {
    this.bytes = bytes;
    this.offset = offset;
    this.floor = floor;
  }
}

export interface AttemptOptions {
  readonly signal?: AbortSignal | undefined;
  /** Error of the attempt before. This one uses a new connection, and logs in again if the login was refused. */
  readonly after?: unknown;
  /** By default `demand`. A source that reads other sources passes it on. */
  readonly urgency?: Urgency;
}

/** All bytes of the source from its start, sent by a server that ignores ranges. */
export interface WholeAnswer {
  /** For messages. */
  readonly host: string;
  /** Whether its Content-Length is the source's. */
  readonly sizeKnown: boolean;
  /** @throws {ObdError} as RangedSource.attempt(). */
  pieces(floor: SpeedFloor): AsyncGenerator<Uint8Array, void, undefined>;
  /** Ends the connection. */
  cutOff(): void;
  /**
   * As cutOff(), because the content is not the source's.
   *
   * @returns Whether the next attempt asks another server.
   */
  refuse(error: ObdError): boolean;
}

export interface RangedSource {
  /** For messages: "sha256:... of host/repository". */
  readonly label: string;

  /**
   * Reads the bytes that `fill` still lacks. Resolves with undefined once `fill` is full. Resolves with the whole
   * content if a server sends that instead; the caller must read it or cut it off.
   *
   * The bytes are not verified: only the digest of the whole content would prove them.
   *
   * @throws {ObdError} `Unavailable` where a retry may help; `FailedPrecondition` after the source was closed, because
   *   the daemon stops; other codes as the source documents. The signal's reason. Any other error is a bug.
   */
  attempt(fill: RangeFill, options?: AttemptOptions): Promise<WholeAnswer | undefined>;

  /** Bytes that it brought failed a check. A source with several servers asks another one next. */
  invalidated?(offset: number, length: number): void;
}
