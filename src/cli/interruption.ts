/**
 * SIGINT and SIGTERM as an AbortSignal, so that a command undoes what it has half done before it ends. A second
 * signal of the same kind ends the process at once, as it would without this.
 */
import { constants } from 'node:os';
import { ErrorCodes, ObdError } from '../errors.js';

let controller: AbortController | undefined;
let status: number | undefined;

/** Aborted, with an ObdError as its reason, once the process is told to end. */
export function interruption(): AbortSignal {
  if (controller === undefined) {
    const created = new AbortController();
    controller = created;
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.once(name, () => {
        status ??= 128 + constants.signals[name];
        created.abort(new ObdError(ErrorCodes.FailedPrecondition, `Interrupted by ${name}`));
      });
    }
  }
  return controller.signal;
}

/** What a shell shows for a program that a signal ended: 130 for SIGINT, 143 for SIGTERM. Undefined without one. */
export function interruptedStatus(): number | undefined {
  return status;
}
