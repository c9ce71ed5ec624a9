/**
 * The one place of this folder that retries a request: at most `attemptsMax` attempts, and none after the deadline. Callers
 * have their own retries, which are not part of this: the cache for reads of blocks (src/cache/blob-fetches.ts), which
 * asks this folder for single attempts, and the recovery of devices.
 *
 * Only `Unavailable` is tried again. The pause doubles from `backoffMs` to BACKOFF_MS_MAX and is drawn from
 * its upper half, so that the many reads that a registry failed at once do not come back at once; a
 * Retry-After, capped, replaces it where it is longer. An error that leaves no time for another attempt
 * is thrown at once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import { BACKOFF_MS_MAX, RETRY_AFTER_MS_MAX } from './registry-limits.js';

export interface RetryPolicy {
  /** Includes the first. */
  readonly attemptsMax: number;
  readonly backoffMs: number;
  /** From the start of the first attempt; undefined if progress bounds each attempt instead. */
  readonly deadlineMs: number | undefined;
}

/** Attempts and time that are left for one operation. */
export class RetryBudget {
  readonly #policy: RetryPolicy;
  readonly #startedMs = performance.now();
  #attempts = 1;

  constructor(policy: RetryPolicy) {
    this.#policy = policy;
  }

  /**
   * Pauses before the next attempt.
   *
   * @throws `error` itself if it is not `Unavailable`; after the last attempt, an ObdError with the number of attempts;
   *   the signal's reason.
   */
  async spend(error: unknown, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (!hasCode(error, ErrorCodes.Unavailable)) throw error;
    const { attemptsMax, deadlineMs = Number.POSITIVE_INFINITY } = this.#policy;
    const pauseMs = this.#pauseMs(error);
    const spentMs = performance.now() - this.#startedMs;
    if (this.#attempts >= attemptsMax || spentMs + pauseMs >= deadlineMs) {
      if (this.#attempts === 1) throw error;
      const message = `${error.message}; gave up after ${this.#attempts} attempts`;
      throw new ObdError(error.code, message, error.details, error);
    }
    this.#attempts++;
    await sleep(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => {});
    signal?.throwIfAborted();
  }

  #pauseMs(error: ObdError): number {
    const full = Math.min(this.#policy.backoffMs * 2 ** (this.#attempts - 1), BACKOFF_MS_MAX);
    const askedMs = Math.min(error.details.retryAfterMs ?? 0, RETRY_AFTER_MS_MAX);
    return Math.max(full * (0.5 + Math.random() / 2), askedMs);
  }
}

/**
 * Runs `attempt` until it succeeds, fails for good, or the policy ends it.
 *
 * @param doing - For the message of a deadline: "Cannot read X".
 * @param signal - The caller's; when it aborts, its reason is thrown.
 * @param attempt - Gets a signal that aborts at the deadline and with the caller's.
 * @throws the error of the last attempt, or `Unavailable` at the deadline.
 */
export async function retrying<T>(
  policy: RetryPolicy,
  doing: string,
  signal: AbortSignal | undefined,
  attempt: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const budget = new RetryBudget(policy);
  // Not AbortSignal.any(): with a long-lived caller's signal, each call would leak memory.
  const controller = new AbortController();
  const forward = () => controller.abort(signal?.reason);
  signal?.addEventListener('abort', forward, { once: true });
  let last: unknown;
  const expire = () => controller.abort(deadlineError(doing, policy, last));
  const timer = policy.deadlineMs === undefined ? undefined : setTimeout(expire, policy.deadlineMs);
  try {
    for (;;) {
      try {
        return await attempt(controller.signal);
      } catch (error) {
        last = error;
        await budget.spend(error, controller.signal);
      }
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', forward);
  }
}

function deadlineError(doing: string, { deadlineMs = 0 }: RetryPolicy, last: unknown): ObdError {
  const before = last === undefined ? '' : `; the last attempt before: ${messageOf(last)}`;
  const message = `${doing}: not done within ${deadlineMs / 1000} s${before}`;
  return new ObdError(ErrorCodes.Unavailable, message, {}, last);
}

/**
 * Parses a Retry-After header to milliseconds (RFC 9110 10.2.3: seconds, or a date); undefined if it is missing or
 * invalid.
 */
export function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^[0-9]{1,9}$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}
