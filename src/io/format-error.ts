/**
 * Errors and refetches for the readers of stored formats when bytes break a rule: every error names the
 * file, the offset and the rule, and a copy that can be fetched again is refetched before it counts as corrupt.
 */
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { type RandomAccessFile, REFETCHES_MAX } from './random-access-file.js';

/** The bytes of `file` at `offset` contradict the format. `rule` says what they should have been. */
export function corrupt(file: { readonly label: string }, offset: number, rule: string): ObdError {
  return new ObdError(ErrorCodes.Corrupt, `Cannot read ${file.label} at ${offset}: ${rule}`, {
    path: file.label,
    offset,
  });
}

/** The bytes of `file` at `offset` are well formed, and need a feature that this build lacks. */
export function unsupported(
  file: { readonly label: string },
  offset: number,
  rule: string,
): ObdError {
  return new ObdError(ErrorCodes.Unsupported, `Cannot read ${file.label} at ${offset}: ${rule}`, {
    path: file.label,
    offset,
  });
}

/**
 * Runs `attempt`, which reads and checks [offset, offset + length) of `file`; when it finds those
 * bytes corrupt, drops the local copy and tries again, at most `refetchesMax` times.
 *
 * @throws errors of `attempt`; `Corrupt` only if no better copy is available.
 */
export async function refetchWhileCorrupt<T>(
  file: RandomAccessFile,
  offset: number,
  length: number,
  attempt: () => Promise<T>,
  refetchesMax = REFETCHES_MAX,
): Promise<T> {
  for (let refetches = 0; ; refetches++) {
    try {
      return await attempt();
    } catch (error) {
      if (!hasCode(error, ErrorCodes.Corrupt) || refetches >= refetchesMax) throw error;
      if (!file.invalidate(offset, length)) throw error;
    }
  }
}
