/**
 * One process per directory: an flock() on the file named `lock`, which the kernel releases when its holder ends.
 *
 * The file stays, so that taking the lock needs no room on the disk. It says which process has the lock, where there is
 * room to say so:
 *
 *   "<pid> <start time of that process> <id of this boot>\n"
 *
 * Earlier versions had that line alone and no flock(). A line of another process that runs therefore counts as a lock,
 * and this version removes the line when it releases the lock.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { lockFile } from './posix.js';
import { bootId, startTime } from './process-identity.js';

/** A lock of an earlier version can be removed between opening and locking its file. */
const ATTEMPTS_MAX = 3;
/** A killed process still holds its lock while the kernel takes it down. */
const ENDING_MS_MAX = 2_000;
const POLL_MS = 50;

export class DirectoryLock {
  #fd: number | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Takes the lock, also of a process that ends within ENDING_MS_MAX.
   *
   * @throws {ObdError} as acquire().
   */
  static async acquireSoon(directory: string): Promise<DirectoryLock> {
    for (const deadlineMs = performance.now() + ENDING_MS_MAX; ; ) {
      try {
        return DirectoryLock.acquire(directory);
      } catch (error) {
        if (!hasCode(error, ErrorCodes.Busy) || performance.now() >= deadlineMs) throw error;
      }
      await sleep(POLL_MS);
    }
  }

  /** @throws {ObdError} `Busy`, naming the process; system errors as they are. */
  static acquire(directory: string): DirectoryLock {
    const path = join(directory, 'lock');
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
      try {
        const holder = readFileSync(fd, 'latin1');
        if (!lockFile(fd) || isAlive(holder)) throw busy(directory, holder);
        if (!isStillAt(path, fd)) {
          closeSync(fd);
          continue;
        }
        writeOwnLine(fd);
        return new DirectoryLock(fd);
      } catch (error) {
        closeSync(fd);
        throw error;
      }
    }
    throw busy(directory, '');
  }

  /** Idempotent. */
  release(): void {
    if (this.#fd === undefined) return;
    ftruncateSync(this.#fd, 0);
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function isStillAt(path: string, fd: number): boolean {
  return statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino;
}

/** For people, and for a daemon of an earlier version. A full disk has no room for it, and the lock holds all the same. */
function writeOwnLine(fd: number): void {
  try {
    ftruncateSync(fd, 0);
    writeSync(fd, `${process.pid} ${startTime(`${process.pid}`)} ${bootId()}\n`, 0, 'latin1');
  } catch {}
}

/** Another process: this one may open the directory again after it released the lock. */
function isAlive(line: string): boolean {
  const [, pid, started, boot] = /^([1-9][0-9]*) ([0-9]+) (\S+)\n$/.exec(line) ?? [];
  if (pid === undefined || Number(pid) === process.pid) return false;
  return boot === bootId() && startTime(pid) === started;
}

function busy(directory: string, holder: string): ObdError {
  const pid = holder.split(' ', 1)[0];
  const process = pid ? `process ${pid}` : 'another process';
  return new ObdError(
    ErrorCodes.Busy,
    `Cannot use the cache "${directory}": ${process} uses it; stop that, or give this one another directory`,
    { path: directory },
  );
}
