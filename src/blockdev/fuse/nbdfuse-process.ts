/**
 * One `nbdfuse`: an NBD export as a file, for as long as the process lives.
 *
 * It runs in the foreground as our child, with one connection: the server answers on one thread, and
 * whether more gain anything is not settled (docs/benchmarks.md). It ends by itself when its mount is taken away.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { access, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError, systemCode } from '../../errors.js';
import { readMountTable } from '../../io/mount-table.js';
import { missingProgram, outputOf } from '../../io/run-program.js';

const START_MS = 10_000;
const STOP_MS = 2_000;
const KILLED_MS = 2_000;
/** umount takes milliseconds; this is for a kernel that does not answer. */
const UMOUNT_MS = 10_000;
const POLL_MS = 5;
/** Of what it writes to stderr: the end, for the error message. */
const LAST_WORDS_MAX = 1_000;

export class NbdfuseProcess {
  readonly #child: ChildProcess;
  readonly #mountPoint: string;
  #lastWords = '';
  #gone: string | undefined;

  private constructor(child: ChildProcess, mountPoint: string) {
    this.#child = child;
    this.#mountPoint = mountPoint;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-LAST_WORDS_MAX);
    });
    child.once('exit', (status, signal) => {
      this.#gone = `it ended with ${signal ?? `status ${status}`}`;
    });
  }

  /**
   * Mounts `uri` as the file `fileName` in `mountPoint`, an empty directory; it is there on return.
   *
   * @param pidFile - Where nbdfuse writes its process id when it serves.
   * @throws {ObdError} `Host` if this host has no nbdfuse or no FUSE, `Io`. Nothing is left mounted or running.
   */
  static async start(
    uri: string,
    mountPoint: string,
    fileName: string,
    pidFile: string,
  ): Promise<NbdfuseProcess> {
    try {
      await access('/dev/fuse');
    } catch (cause) {
      throw new ObdError(
        ErrorCodes.Host,
        'Cannot use FUSE: there is no /dev/fuse; `modprobe fuse` brings it',
        { path: '/dev/fuse' },
        cause,
      );
    }
    const args = ['--readonly', '--connections', '1', '--pidfile', pidFile];
    const child = spawn('nbdfuse', [...args, `${mountPoint}/${fileName}`, uri], {
      stdio: ['ignore', 'ignore', 'pipe'],
      // A session of its own: an interrupt typed at the daemon's terminal is for the daemon.
      detached: true,
    });
    const spawned = new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    try {
      await spawned;
    } catch (error) {
      if (systemCode(error) === 'ENOENT') throw missingProgram('nbdfuse');
      throw new ObdError(ErrorCodes.Io, `Cannot start nbdfuse: ${error}`, {}, error);
    }
    const nbdfuse = new NbdfuseProcess(child, mountPoint);
    try {
      await nbdfuse.#untilReady(pidFile);
      return nbdfuse;
    } catch (error) {
      await nbdfuse.stop();
      throw error;
    }
  }

  async #untilReady(pidFile: string): Promise<void> {
    const deadline = performance.now() + START_MS;
    while (!(await isWritten(pidFile))) {
      const state = this.#gone ?? (performance.now() > deadline ? 'it does not start' : undefined);
      if (state !== undefined) {
        const words = this.#lastWords.trim();
        const remedy = /fuse: (device not found|failed to open)/.test(words)
          ? '; it takes root and `modprobe fuse`'
          : '';
        throw new ObdError(
          remedy === '' ? ErrorCodes.Io : ErrorCodes.Host,
          `Cannot mount by nbdfuse: ${state}${words === '' ? '' : `: ${words}`}${remedy}`,
          { path: this.#mountPoint },
        );
      }
      await sleep(POLL_MS);
    }
  }

  /** Unmounts the file and ends the process. Idempotent. @throws {ObdError} `Busy` if the file is open, `Io`. */
  async stop(): Promise<void> {
    await unmountFuse(this.#mountPoint);
    const startedMs = performance.now();
    while (this.#gone === undefined) {
      const waitedMs = performance.now() - startedMs;
      if (waitedMs > STOP_MS + KILLED_MS) throw this.#immortal();
      // It may not have mounted yet, or hang.
      if (waitedMs > STOP_MS) this.#child.kill('SIGKILL');
      await sleep(POLL_MS);
    }
    await unmountFuse(this.#mountPoint);
  }

  #immortal(): ObdError {
    return new ObdError(
      ErrorCodes.Io,
      `Cannot end nbdfuse, process ${this.#child.pid}: it hangs in the kernel, where no signal reaches it`,
      { path: this.#mountPoint },
    );
  }
}

/**
 * Takes away what is mounted at `mountPoint`, if something is.
 *
 * @throws {ObdError} `Busy` if a file in it stays open, `Io`.
 */
export async function unmountFuse(mountPoint: string): Promise<void> {
  const deadline = performance.now() + STOP_MS;
  while ((await readMountTable()).some(({ target }) => target === mountPoint)) {
    try {
      await outputOf('umount', ['--no-canonicalize', '--internal-only', mountPoint], UMOUNT_MS);
    } catch (error) {
      // A loop device lets go of its file a moment after it is gone.
      if (performance.now() > deadline) {
        const code = /busy/.test(String(error)) ? ErrorCodes.Busy : ErrorCodes.Io;
        const message = `Cannot unmount "${mountPoint}": ${error}; end who has a file open in it`;
        throw new ObdError(code, message, { path: mountPoint }, error);
      }
      await sleep(POLL_MS);
    }
  }
}

async function isWritten(path: string): Promise<boolean> {
  try {
    return (await readFile(path)).length > 0;
  } catch {
    return false;
  }
}
