/** Reads a range of a registry's blob with several attempts, without a cache. */
import { type RangedSource, RangeFill } from '../../src/io/ranged-source.js';
import { retrying } from '../../src/registry/retry.js';

export async function readRange(
  blob: RangedSource,
  target: Uint8Array,
  offset: number,
  signal?: AbortSignal,
  deadlineMs = 10_000,
): Promise<void> {
  const policy = { attemptsMax: 10, backoffMs: 1, deadlineMs };
  const fill = new RangeFill(target, offset);
  let after: unknown;
  await retrying(policy, 'Cannot read', signal, async (attemptSignal) => {
    try {
      const whole = await blob.attempt(fill, { signal: attemptSignal, after });
      if (whole === undefined) return;
      let at = -offset;
      for await (const piece of whole.pieces(fill.floor)) {
        const part = piece.subarray(Math.max(0, -at), Math.max(0, target.length - at));
        if (at < target.length) target.set(part, Math.max(0, at));
        at += piece.length;
      }
    } catch (error) {
      after = error;
      throw error;
    }
  });
}
