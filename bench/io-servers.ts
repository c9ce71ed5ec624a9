/**
 * The servers that bench:io measures: the image through each of our transports, and for each a peer of the same kind
 * that serves the raw disk. All run as separate processes under one folder, so that their CPU time can be told apart.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, hasCode, ObdError } from '../src/errors.js';
import { type FioTarget, QemuNbd, run } from './programs.js';
import type { SampleImage } from './sample-image.js';
import { startTcmuRunner } from './tcmu-runner.js';

const START_MS = 60_000;
/** A number that programs which take the first free one do not use. */
const PEER_NBD = '/dev/nbd15';

export const PATHS = ['socket', 'nbd', 'tcmu', 'ublk', 'fuse'] as const;
export type PathName = (typeof PATHS)[number];

export interface Served {
  readonly name: string;
  readonly target: FioTarget;
  /** The processes that pay the CPU time of the reads, in addition to the kernel's own threads. */
  pids(): Promise<readonly number[]>;
  stop(): Promise<void>;
}

/** A server that cannot be measured on this host, and the reason. */
export interface Absent {
  readonly name: string;
  readonly missing: string;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

/** Processes whose command line names `path`: helpers outlive their parents, and are no children. */
async function processesNaming(path: string): Promise<number[]> {
  const found: number[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(entry) || Number(entry) === process.pid) continue;
    const command = await readFile(`/proc/${entry}/cmdline`, 'latin1').catch(() => '');
    if (command.split('\0').some((word) => word.includes(path))) found.push(Number(entry));
  }
  return found;
}

/** The image through one of our transports. */
export async function startOwn(
  path: PathName,
  image: SampleImage,
  folder: string,
): Promise<Served | Absent> {
  const name = `obd-ts ${path}`;
  const directory = join(folder, `own-${path}`);
  await mkdir(directory);
  const extension = existsSync(join(import.meta.dirname, 'io-server.js')) ? 'js' : 'ts';
  const server = join(import.meta.dirname, `io-server.${extension}`);
  const child = spawn(
    process.execPath,
    [...process.execArgv, server, path, directory, ...image.layers],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const signal = AbortSignal.timeout(START_MS);
  const lines = createInterface({ input: child.stdout });
  const [line] = await once(lines, 'line', { signal }).catch(() => ['{"failed":"no answer"}']);
  const answer = JSON.parse(line) as {
    readonly uri?: string;
    readonly device?: string;
    readonly missing?: string;
    readonly failed?: string;
  };
  if (answer.missing !== undefined || answer.failed !== undefined) {
    await end(child);
    return { name, missing: answer.missing ?? `it failed: ${answer.failed}` };
  }
  const target = answer.uri === undefined ? { device: answer.device! } : { uri: answer.uri };
  return {
    name,
    target,
    pids: () => processesNaming(directory),
    stop: () => end(child),
  };
}

/** The peers of a path, started. */
export async function startPeers(
  path: PathName,
  image: SampleImage,
  folder: string,
): Promise<(Served | Absent)[]> {
  const starts: Record<PathName, readonly Start[]> = {
    socket: [
      { name: 'nbdkit file', start: () => startNbdkit(image.raw, join(folder, 'nbdkit.sock')) },
      { name: 'qemu-nbd raw', start: () => startQemuSocket(image.raw, join(folder, 'qemu.sock')) },
    ],
    nbd: [{ name: 'qemu-nbd raw', start: () => startQemuKernel(image.raw) }],
    tcmu: [{ name: 'tcmu-runner qcow on raw', start: () => startTcmuRunner(image.raw) }],
    ublk: [],
    fuse: [{ name: 'nbdfuse and loop', start: () => startNbdfuse(image.raw, folder) }],
  };
  return await Promise.all(
    starts[path].map(async ({ name, start }) => {
      try {
        return { name, ...(await start()) };
      } catch (error) {
        if (!hasCode(error, ErrorCodes.Host) && !hasCode(error, ErrorCodes.Io)) throw error;
        return { name, missing: error.message };
      }
    }),
  );
}

interface Start {
  readonly name: string;
  readonly start: () => Promise<Omit<Served, 'name'>>;
}

async function launch(program: string, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  await once(child, 'spawn').catch(() => {
    throw new ObdError(ErrorCodes.Host, `${program} is not installed`);
  });
  return child;
}

async function until(child: ChildProcess, what: string, done: () => boolean | Promise<boolean>) {
  const deadline = performance.now() + START_MS;
  while (!(await done())) {
    if (child.exitCode !== null || performance.now() > deadline) {
      await end(child);
      throw new ObdError(ErrorCodes.Io, `${what} does not start`);
    }
    await sleep(20);
  }
}

async function startNbdkit(raw: string, socket: string): Promise<Omit<Served, 'name'>> {
  const child = await launch('nbdkit', ['-f', '-r', '-U', socket, 'file', raw]);
  await until(child, 'nbdkit', () => existsSync(socket));
  return {
    target: { uri: `nbd+unix:///?socket=${socket}` },
    pids: async () => [child.pid!],
    stop: () => end(child),
  };
}

async function startQemuSocket(raw: string, socket: string): Promise<Omit<Served, 'name'>> {
  const server = await QemuNbd.start(raw, 'raw', socket);
  return {
    target: { uri: server.uri },
    pids: async () => [server.pid],
    stop: () => server.stop(),
  };
}

async function startQemuKernel(raw: string): Promise<Omit<Served, 'name'>> {
  if (!existsSync(PEER_NBD)) {
    throw new ObdError(ErrorCodes.Host, `there is no ${PEER_NBD}; \`modprobe nbd\` brings it`);
  }
  // Verbose, because otherwise it would continue as another process.
  const args = ['-v', '-r', '-f', 'raw', '-c', PEER_NBD, raw];
  const child = await launch('qemu-nbd', args);
  const size = `/sys/block/${PEER_NBD.slice(5)}/size`;
  await until(child, 'qemu-nbd', async () => Number(await readFile(size, 'utf8')) > 0);
  return {
    target: { device: PEER_NBD },
    pids: async () => [child.pid!],
    stop: async () => {
      const ended = child.exitCode === null ? once(child, 'exit') : undefined;
      await run('qemu-nbd', ['-d', PEER_NBD]);
      await ended;
    },
  };
}

/** The first form of the fuse transport: nbdkit's export as a file, and a loop device over it. */
async function startNbdfuse(raw: string, folder: string): Promise<Omit<Served, 'name'>> {
  const file = join(folder, 'nbdfuse-disk');
  await run('touch', [file]);
  const child = await launch('nbdfuse', ['-r', file, '--command', 'nbdkit', '-s', 'file', raw]);
  await until(child, 'nbdfuse', async () => Number(await run('stat', ['-c', '%s', file])) > 0);
  const device = await run('losetup', ['-f', '--show', '-r', '--direct-io=on', file]);
  return {
    target: { device: device.trim() },
    pids: async () => [...(await processesNaming(raw))],
    stop: async () => {
      await run('losetup', ['-d', device.trim()]);
      await run('fusermount', ['-u', file]);
      if (child.exitCode === null) await once(child, 'exit');
    },
  };
}
