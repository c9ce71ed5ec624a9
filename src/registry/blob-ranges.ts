/** The seam between the block cache and the network: what a cache asks of a registry, and no more. */

/** One blob of one registry, read by ranges. */
export interface BlobRanges {
  /** For messages: "sha256:... of host/repository". */
  readonly label: string;
  readonly digest: string;
  readonly sizeBytes: number;
  /**
   * Fills all of `target` from `offset` with one ranged GET (206 checked: range, length; a 200 for the
   * whole blob is cut down or refused), retried within limits.fetchDeadlineMs.
   *
   * @throws {ObdError} `Unavailable`, `Unauthorized`, `NotFound`, `Registry`.
   */
  readRange(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void>;
}
