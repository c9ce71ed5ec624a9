/**
 * What the readers of stored formats say and do when bytes break a rule: every complaint names the
 * file, the offset and the rule, and a copy that can be fetched again is, before it is believed.
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

/** The bytes of `file` at `offset` are well formed, and ask for what this build does not do. */
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
 * @throws what `attempt` throws; `Corrupt` only where no better copy was to be had.
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
      if (!file.forget(offset, length)) throw error;
    }
  }
}
