/**
 * SIGINT and SIGTERM as an AbortSignal, so that a command undoes what it has half done before it ends. A second
 * signal of the same kind ends the process at once, as it would without this.
 */
import { ErrorCodes, ObdError } from '../errors.js';

let controller: AbortController | undefined;

/** Aborted, with an ObdError as its reason, once the process is told to end. */
export function interruption(): AbortSignal {
  if (controller === undefined) {
    const created = new AbortController();
    controller = created;
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.once(name, () =>
        created.abort(new ObdError(ErrorCodes.FailedPrecondition, `Interrupted by ${name}`)),
      );
    }
  }
  return controller.signal;
}
