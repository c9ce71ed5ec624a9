/**
 * One process per directory: a file named `lock` that says which process it is.
 *
 *   "<pid> <start time of that process> <id of this boot>\n"
 *
 * It is linked into place whole, so it is never seen half-written. A lock whose process is gone is moved
 * away and taken over; whoever finds that it moved away somebody's fresh lock instead puts it back. Pids
 * are compared, so processes that share the directory must see each other in /proc: no sharing between
 * containers or machines.
 */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ErrorCodes, ObdError, systemCode } from '../errors.js';

/** Two processes that start at once may each see the other's stale lock vanish. */
const ATTEMPTS_MAX = 3;

export class DirectoryLock {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** @throws {ObdError} `Busy`, naming the process; system errors as they are. */
  static acquire(directory: string): DirectoryLock {
    const path = join(directory, 'lock');
    const own = join(directory, `lock.${process.pid}`);
    writeFileSync(own, ownLine(), { mode: 0o600 });
    try {
      for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        if (linked(own, path)) return new DirectoryLock(path);
        const holder = readIfThere(path);
        if (holder === undefined) continue;
        if (isAlive(holder)) throw busy(directory, holder);
        takeAway(path, `${own}.stale`, holder);
      }
      throw busy(directory, readIfThere(path) ?? '');
    } finally {
      rmSync(own, { force: true });
    }
  }

  release(): void {
    rmSync(this.#path, { force: true });
  }
}

/** Whether `own` got the name `path`, which nobody had. */
function linked(own: string, path: string): boolean {
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** Removes the lock of `holder`, which is dead, and no other. */
function takeAway(path: string, aside: string, holder: string): void {
  try {
    renameSync(path, aside);
    if (readIfThere(aside) !== holder) linked(aside, path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function ownLine(): string {
  return `${process.pid} ${startTime(process.pid)} ${bootId()}\n`;
}

/** A line that makes no sense is nobody's: it is linked whole, so a crash of the disk left it. */
function isAlive(line: string): boolean {
  const match = /^([1-9][0-9]*) ([0-9]+) (\S+)\n$/.exec(line);
  if (match === null) return false;
  return match[3] === bootId() && startTime(Number(match[1])) === match[2];
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

/** In ticks since boot, so that a pid used again is told apart; empty for no such process. */
function startTime(pid: number): string {
  const stat = readIfThere(`/proc/${pid}/stat`);
  // "pid (name) state ...": the name may hold anything, so count from its closing parenthesis.
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

function busy(directory: string, holder: string): ObdError {
  const pid = holder.split(' ', 1)[0];
  return new ObdError(
    ErrorCodes.Busy,
    `Cannot use the cache "${directory}": process ${pid} uses it; stop that, or give this one a directory of its own`,
    { path: directory },
  );
}
