/**
 * The container whose start is recorded, run by containerd's `ctr`: a writable snapshot of the image, mounted at a new directory,
 * and a container over it. `ctr run IMAGE` of containerd 1.6 and 1.7 can replace neither Entrypoint nor User, so the whole config of
 * the container is written here. The mount outlives the container, because the recording needs the device after a short command.
 *
 * A lease holds the snapshot. After a killed run the next one removes container and mount (removeAbandoned()), and its pull both of
 * these.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectContainerd, underLease } from '../../containerd/connect.js';
import { Leases } from '../../containerd/leases.js';
import { Snapshots } from '../../containerd/snapshots.js';
import { outputOf, runProgram } from '../../io/run-program.js';
import type { StartCommand } from '../../predict/start-command.js';
import { type ContainerMount, containerSpec } from './container-spec.js';
import { containerUser } from './container-user.js';
import {
  abandonedRecordFolders,
  makeRecordFolder,
  removeRecordFolder,
  rootIn,
} from './record-folder.js';

const MOUNT_MS_MAX = 60_000;
const CTR_MS_MAX = 30_000;
/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 5_000;
/** Longer than any recording. */
const LEASE_MS = 24 * 3600 * 1000;
/** Enough for any /etc/passwd or /etc/group. */
const USERS_BYTES_MAX = 1 << 20;

export interface RecordedContainer {
  readonly address: string;
  readonly namespace: string;
  readonly snapshotter: string;
  /** The chain ID of the image's topmost layer. */
  readonly chainId: string;
  readonly command: StartCommand;
  /** As the image config or the user says it; empty for root. */
  readonly user: string;
  readonly mounts: readonly ContainerMount[];
  readonly isInHostNetwork: boolean;
}

export interface RunningContainer {
  /** Resolves with the status of the command. */
  readonly exited: Promise<number>;
}

/**
 * Runs a container, calls `use` while it is there, and removes all of it.
 *
 * @param onOutput - Called with each piece of its output.
 * @throws {ObdError} `Host` if `ctr` is not installed, `Io` if it fails, `NotFound` for an unknown user; what `use` throws.
 */
export async function withContainer<T>(
  container: RecordedContainer,
  onOutput: (text: string) => void,
  use: (running: RunningContainer) => Promise<T>,
): Promise<T> {
  const base = await outputOf('ctr', ['oci', 'spec'], CTR_MS_MAX);
  return await withRoot(container, async (folder) => {
    const id = basename(folder);
    const root = rootIn(folder);
    const spec = containerSpec(base, {
      ...container,
      user: await userIn(root, container.user),
      root,
      cgroupsPath: `/${container.namespace}/${id}`,
    });
    const config = join(folder, 'config.json');
    await writeFile(config, spec, { mode: 0o600 });
    return await run(container, config, id, onOutput, use);
  });
}

/**
 * Removes the containers, mounts and folders of recordings whose process is gone.
 *
 * @returns The removed folders.
 */
export async function removeAbandoned(
  place: Pick<RecordedContainer, 'address' | 'namespace'>,
): Promise<string[]> {
  const removed: string[] = [];
  for (const folder of await abandonedRecordFolders()) {
    const id = basename(folder);
    await runProgram('ctr', ctrArguments(place, 'tasks', 'delete', '--force', id), CTR_MS_MAX);
    await runProgram('ctr', ctrArguments(place, 'containers', 'delete', id), CTR_MS_MAX);
    if (await removeRecordFolder(folder)) removed.push(folder);
  }
  return removed;
}

function ctrArguments(
  { address, namespace }: Pick<RecordedContainer, 'address' | 'namespace'>,
  ...args: string[]
): string[] {
  return ['--address', address, '--namespace', namespace, ...args];
}

/** Calls `use` with a folder in whose `root` a new snapshot of the image is mounted. */
async function withRoot<T>(
  { address, namespace, snapshotter, chainId }: RecordedContainer,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const containerd = connectContainerd(address, namespace);
  try {
    const leases = new Leases(containerd);
    const lease = await leases.create(LEASE_MS);
    const snapshots = new Snapshots(underLease(containerd, lease), snapshotter);
    const folder = await makeRecordFolder();
    const root = rootIn(folder);
    try {
      for (const mount of await snapshots.prepare(root, chainId, {})) {
        const { type, source, options } = mount;
        const args = ['-t', type, '-o', options.join(','), '--', source, root];
        await outputOf('mount', args, MOUNT_MS_MAX);
      }
      return await use(folder);
    } finally {
      await removeRecordFolder(folder).catch(() => {});
      await snapshots.remove(root).catch(() => {});
      await leases.remove(lease, true).catch(() => {});
    }
  } finally {
    containerd.close();
  }
}

async function run<T>(
  container: RecordedContainer,
  config: string,
  id: string,
  onOutput: (text: string) => void,
  use: (running: RunningContainer) => Promise<T>,
): Promise<T> {
  const ctr = (...args: string[]) => ctrArguments(container, ...args);
  // A separate process group: an interruption ends the container through stop(), once.
  const child = spawn('ctr', ctr('run', '--rm', '--config', config, id), {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (piece: Buffer) => onOutput(piece.toString()));
  }
  const exited = exitOf(child);
  try {
    return await use({ exited });
  } finally {
    await stop(child, exited, (signal) =>
      runProgram('ctr', ctr('tasks', 'kill', '--signal', signal, id), CTR_MS_MAX),
    );
  }
}

async function userIn(root: string, user: string) {
  const [passwd, group] = await Promise.all([
    textOf(join(root, 'etc/passwd')),
    textOf(join(root, 'etc/group')),
  ]);
  return containerUser(user, passwd, group);
}

/** The text of a file of the image; empty if there is no such plain file. A link could lead out of the image. */
async function textOf(path: string): Promise<string> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(USERS_BYTES_MAX));
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch {
    return '';
  }
}

function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once('error', () => resolve(-1));
    child.once('close', (status) => resolve(status ?? -1));
  });
}

async function stop(
  child: ChildProcess,
  exited: Promise<number>,
  kill: (signal: string) => Promise<unknown>,
): Promise<void> {
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    if (child.exitCode !== null) break;
    await kill(signal);
    await Promise.race([exited, sleep(GRACE_MS, undefined, { ref: false })]);
  }
  if (child.exitCode === null) child.kill('SIGKILL');
}
