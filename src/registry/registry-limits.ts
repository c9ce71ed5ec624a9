/**
 * Timeouts and retry limits for registries. One set per client.
 *
 * The defaults fit a disk behind the network: an attempt times out soon enough that a second and a third fit before the
 * deadline of a read (src/cache/blob-fetches.ts).
 */
export interface RegistryLimits {
  /** TCP and TLS together. */
  readonly connectMs: number;
  /** From the end of a request to the head of its answer. */
  readonly headersMs: number;
  /** The same for the end of an upload: the registry may hash and copy it before it answers. */
  readonly uploadHeadersMs: number;
  /** Between two pieces of an upload; the registry may be writing to slow storage. */
  readonly uploadIdleMs: number;
  /** Between two pieces of a body. */
  readonly bodyIdleMs: number;
  /** Attempts at one request, including the first. A deadline bounds reads of blocks instead. */
  readonly attemptsMax: number;
  /** Before the second attempt; doubled for each further one up to {@link BACKOFF_MS_MAX}, with jitter. */
  readonly backoffMs: number;
  /** All attempts at a request that moves no blob. */
  readonly requestDeadlineMs: number;
  /** All attempts at finding the size of a blob. */
  readonly fetchDeadlineMs: number;
}

export const DEFAULT_LIMITS: RegistryLimits = {
  connectMs: 5_000,
  headersMs: 15_000,
  uploadHeadersMs: 300_000,
  uploadIdleMs: 60_000,
  bodyIdleMs: 15_000,
  attemptsMax: 5,
  backoffMs: 200,
  requestDeadlineMs: 120_000,
  fetchDeadlineMs: 60_000,
};

/** Longer waits would use up a read's deadline in a few attempts. */
export const BACKOFF_MS_MAX = 5_000;
/** A registry may ask for an hour; then the caller retries, or fails, sooner. */
export const RETRY_AFTER_MS_MAX = 30_000;
/** About 18 fit with the default backoffMs and deadline; this limit applies if a registry fails at once. */
export const FETCH_ATTEMPTS_MAX = 30;
