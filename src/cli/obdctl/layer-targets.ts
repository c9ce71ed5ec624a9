/** `--target` of `obdctl layer`, and the memory that these commands use. */
import { ErrorCodes, ObdError } from '../../errors.js';

/** For the decoded blocks that one command keeps; more would help nothing that reads once. */
export const DECODED_BYTES = 4 << 20;

/** @throws {ObdError} `InvalidArgument` unless there is a target for each layer, or none at all. */
export function checkTargets(layers: readonly string[], targets: readonly string[]): void {
  if (targets.length === 0 || targets.length === layers.length) return;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot match ${targets.length} targets to ${layers.length} layers: give --target once per layer`,
  );
}
