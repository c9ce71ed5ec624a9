/**
 * Names a process so that a later one can tell whether it still runs, from /proc: pid, start time, boot, PID namespace.
 *
 *   "<pid> <start time in ticks since boot> <boot id> <PID namespace>"
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { systemCode } from '../errors.js';

/**
 * The state of an owner: it runs; it has ended; it ran before the last boot, or on another machine; or it is in another
 * PID namespace, which this process cannot see.
 */
export type OwnerState = 'running' | 'ended' | 'other-boot' | 'unknown';

export function ownIdentity(): string {
  const { pid } = process;
  return `${pid} ${startTime(String(pid))} ${bootId()} ${pidNamespace()}`;
}

/** @param identity - What ownIdentity() returned in that process; a text of another form is `unknown`. */
export function ownerState(identity: string): OwnerState {
  const match = /^([1-9][0-9]*) ([0-9]+) (\S+) (\S+)$/.exec(identity.trim());
  if (match === null) return 'unknown';
  const [, pid = '', started, boot, namespace] = match;
  if (boot !== bootId()) return 'other-boot';
  if (namespace !== pidNamespace()) return 'unknown';
  return startTime(pid) === started ? 'running' : 'ended';
}

/** Differs after each boot. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

function pidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid');
}

/**
 * When a process started, in ticks since boot: distinguishes reused pids.
 *
 * @returns Undefined for no such process, and for one that has ended and was not waited for.
 */
export function startTime(pid: string): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
  // "pid (name) state ...": the name may hold anything, so count from its closing parenthesis.
  const [state = '', ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return state === 'Z' || state === 'X' ? undefined : fields[18];
}
