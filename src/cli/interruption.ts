/**
 * The signals that end a process, as an AbortSignal, so that it undoes unfinished work before it ends. A second signal of
 * the same kind ends the process at once, by its default action.
 */
import { constants } from 'node:os';
import { ErrorCodes, ObdError } from '../errors.js';

const DAEMON_SIGNALS = ['SIGINT', 'SIGTERM'] as const;
/** SIGHUP comes when the terminal closes; a daemon reloads (reloading.ts). */
const COMMAND_SIGNALS = [...DAEMON_SIGNALS, 'SIGHUP'] as const;

let controller: AbortController | undefined;
let status: number | undefined;

/** Aborted, with an ObdError as its reason, once a command is told to end: SIGINT, SIGTERM, SIGHUP. */
export function interruption(): AbortSignal {
  return signalOf(COMMAND_SIGNALS);
}

/** Aborted once a daemon is told to end: SIGINT, SIGTERM. */
export function daemonStop(): AbortSignal {
  return signalOf(DAEMON_SIGNALS);
}

function signalOf(names: readonly (typeof COMMAND_SIGNALS)[number][]): AbortSignal {
  if (controller === undefined) {
    const created = new AbortController();
    controller = created;
    for (const name of names) {
      process.once(name, () => {
        status ??= 128 + constants.signals[name];
        created.abort(new ObdError(ErrorCodes.FailedPrecondition, `Interrupted by ${name}`));
      });
    }
  }
  return controller.signal;
}

/** The shell's exit status for a program that a signal ended: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP. */
export function interruptedStatus(): number | undefined {
  return status;
}
