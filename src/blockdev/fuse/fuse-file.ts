/**
 * The program native/fuse-file, which makes a device of an NBD export and then stays as its holder: it answers the
 * kernel's reads from any server that listens at the socket. Reads wait while there is none.
 *
 * A holder is no child of the daemon, and there is no record of it: its command line, which names the file that it
 * answers for, identifies it. It ends when the loop device on that file is detached.
 */
import { execFile } from 'node:child_process';
import { fstatSync, openSync, statSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { findProgramFile } from '../../io/program-files.js';

const NAME = 'fuse-file';
const BUILT = join('native', NAME, 'build', 'Release', NAME);
/** The program's own limits are shorter; this is for a kernel that does not answer. */
const MAKE_MS = 45_000;
/** Its exit status where this host lacks something. */
const HOST_LACKS = 2;
/** A holder ends by itself as soon as its device is gone, and at the latest when it is killed. */
const END_MS = 1_000;
const KILLED_MS = 1_000;
const POLL_MS = 2;

/** Opened when this module is loaded: an upgrade may replace or remove the file while this process lives. */
const opened = openedProgram();

function openedProgram(): { path: string; fd: number } | undefined {
  const path = findProgramFile(BUILT);
  return path === undefined ? undefined : { path, fd: openSync(path, 'r') };
}

/** The path of the program as it was when this process began; undefined if it was not built. */
export function fuseFile(): string | undefined {
  if (opened === undefined) return undefined;
  const { path, fd } = opened;
  const now = statSync(path, { throwIfNoEntry: false });
  const { dev, ino } = fstatSync(fd);
  // Its own path where possible, which names the process in ps(1). The other is also right in the child.
  return now?.dev === dev && now.ino === ino ? path : `/proc/${process.pid}/fd/${fd}`;
}

export interface FuseDeviceMade {
  /** The device node. */
  readonly path: string;
  /** The holder's process. */
  readonly pid: number;
}

interface FuseDeviceOptions {
  readonly socketPath: string;
  readonly exportName: string;
  /** The file that the kernel shows behind the loop device: absolute, one per device. Nothing is created there. */
  readonly file: string;
  /** Where the holder logs the loss and return of its servers. */
  readonly log: string;
  /** How long reads wait for a server before they are answered with EIO. */
  readonly absenceSeconds: number;
}

/**
 * Makes the device and its holder. The device answers reads by then.
 * @throws {ObdError} `Host`, `Io`.
 */
export function makeFuseDevice(options: FuseDeviceOptions): Promise<FuseDeviceMade> {
  const { socketPath, exportName, file, log, absenceSeconds } = options;
  const program = fuseFile();
  if (program === undefined) {
    const message = `Cannot run ${NAME}: there is no "${BUILT}"; build it with \`npm run build\``;
    throw new ObdError(ErrorCodes.Host, message, { path: BUILT });
  }
  const args = [socketPath, exportName, file, log, String(absenceSeconds)];
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { env: { LC_ALL: 'C' } }, (error, stdout, stderr) => {
      clearTimeout(timer);
      const [, path, pid] = /^(\/dev\/loop\d+) (\d+)\n$/.exec(stdout) ?? [];
      if (error === null && path !== undefined) return resolve({ path, pid: Number(pid) });
      const said = stderr.trim().replaceAll('\n', '; ');
      const state = said !== '' ? said : error === null ? `it says "${stdout}"` : messageOf(error);
      const code = error?.code === HOST_LACKS ? ErrorCodes.Host : ErrorCodes.Io;
      reject(new ObdError(code, `Cannot make a device of "${file}": ${state}`, { path: file }));
    });
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      child.unref();
      const message = `Cannot make a device of "${file}": no end after ${MAKE_MS} ms`;
      reject(new ObdError(ErrorCodes.Io, message, { path: file }));
    }, MAKE_MS);
  });
}

/**
 * The processes that answer for files, or are about to, by file.
 *
 * Reads the command lines of holders only: that of a process which hangs in the kernel may not be readable, and a file of
 * /proc costs Node a buffer of 64 KiB, for every process of the host. A link costs a string.
 */
export async function listHolders(): Promise<Map<string, number[]>> {
  const holders = new Map<string, number[]>();
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  await Promise.all(
    pids.map(async (pid) => {
      const file = await fileOf(pid);
      if (file === undefined) return;
      holders.set(file, [...(holders.get(file) ?? []), Number(pid)]);
    }),
  );
  return holders;
}

/** Whether the process is a holder, also of a replaced or rebuilt program. False for a zombie. */
export async function isHolder(pid: number | string): Promise<boolean> {
  const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
  return basename(program).replace(/ \(deleted\)$/, '') === NAME;
}

/** Undefined if the process is no holder, or has ended. */
async function fileOf(pid: number | string): Promise<string | undefined> {
  if (!(await isHolder(pid))) return undefined;
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return line.split('\0')[3];
}

/**
 * Waits for the end of all processes that answer for the file, whose device is gone.
 * @throws {ObdError} `Io` if one hangs in the kernel, where no signal reaches it.
 */
export async function endHolders(file: string): Promise<void> {
  const startedMs = performance.now();
  for (let pids = await pidsOf(file); pids.length > 0; pids = await pidsOf(file)) {
    for (const pid of pids) await endHolder(pid, startedMs, file);
  }
}

/** Ends the holders of an unused device: reads in flight fail, and the device is dead. */
export async function killHolders(file: string): Promise<void> {
  for (const pid of await pidsOf(file)) kill(pid);
}

async function pidsOf(file: string): Promise<readonly number[]> {
  return (await listHolders()).get(file) ?? [];
}

async function endHolder(pid: number, startedMs: number, file: string): Promise<void> {
  // Never signal a process that has taken over the number.
  while ((await fileOf(pid)) === file) {
    const waitedMs = performance.now() - startedMs;
    if (waitedMs > END_MS + KILLED_MS) {
      throw new ObdError(
        ErrorCodes.Io,
        `Cannot end ${NAME}, process ${pid}: it hangs in the kernel, where no signal reaches it`,
        { path: file },
      );
    }
    if (waitedMs > END_MS) kill(pid);
    await sleep(POLL_MS);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemCode(error) !== 'ESRCH') throw error;
  }
}
