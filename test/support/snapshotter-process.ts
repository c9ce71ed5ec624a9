/**
 * Runs obd-snapshotter as a process in a new directory of /var/tmp (overlayfs cannot stack on overlayfs, which /tmp may be),
 * and a client that makes containerd's calls.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Info__Output } from '../../src/grpc/gen/containerd/services/snapshots/v1/Info.js';
import type { SnapshotsDefinition } from '../../src/grpc/gen/containerd/services/snapshots/v1/Snapshots.js';
import type { Mount__Output } from '../../src/grpc/gen/containerd/types/Mount.js';
import { GrpcClient } from '../../src/grpc/grpc-client.js';
import { loadService } from '../../src/grpc/proto.js';
import { programArguments } from './program.js';

const START_MS_MAX = 20_000;
const CALL_MS_MAX = 120_000;
const REF = 'containerd.io/snapshot.ref';

type Labels = Record<string, string>;

const methods = loadService<SnapshotsDefinition>(
  'containerd/services/snapshots/v1/snapshots.proto',
  'containerd.services.snapshots.v1.Snapshots',
);

/** Why the snapshotter cannot run here; false if it can. */
export const unfit = process.geteuid?.() === 0 ? false : 'mounting needs root';

export class SnapshotsClient {
  readonly #client: GrpcClient;

  readonly #namespace: string;

  /** @param namespace - Only keys contain it, as in containerd 1.6. */
  constructor(socketPath: string, namespace = 'testsuite') {
    this.#namespace = namespace;
    this.#client = new GrpcClient(socketPath, {
      peer: 'obd-snapshotter',
      timeoutMs: CALL_MS_MAX,
    });
  }

  async prepare(key: string, parent: string, labels: Labels = {}): Promise<Mount__Output[]> {
    return (await this.#client.call(methods.Prepare, { key, parent, labels })).mounts;
  }

  async view(key: string, parent: string, labels: Labels = {}): Promise<Mount__Output[]> {
    return (await this.#client.call(methods.View, { key, parent, labels })).mounts;
  }

  async mounts(key: string): Promise<Mount__Output[]> {
    return (await this.#client.call(methods.Mounts, { key })).mounts;
  }

  async commit(name: string, key: string, labels: Labels = {}): Promise<void> {
    await this.#client.call(methods.Commit, { name, key, labels });
  }

  async remove(key: string): Promise<void> {
    await this.#client.call(methods.Remove, { key });
  }

  async stat(key: string): Promise<Info__Output> {
    return sent((await this.#client.call(methods.Stat, { key })).info);
  }

  async update(info: { name: string; labels: Labels; parent?: string }, ...paths: string[]) {
    const updateMask = { paths };
    return sent((await this.#client.call(methods.Update, { info, updateMask })).info);
  }

  async list(...filters: string[]): Promise<Info__Output[]> {
    const all: Info__Output[] = [];
    for await (const { info } of this.#client.stream(methods.List, { filters })) all.push(...info);
    return all;
  }

  async usage(key: string): Promise<{ size: number; inodes: number }> {
    return await this.#client.call(methods.Usage, { key });
  }

  async cleanup(): Promise<void> {
    await this.#client.call(methods.Cleanup, {});
  }

  /** Calls Prepare for an overlaybd layer as containerd's unpacker does. @returns Whether it needs no download. */
  async prepareLayer(chainId: string, parent: string, annotations: Labels): Promise<boolean> {
    try {
      const labels = { ...annotations, [REF]: chainId };
      await this.prepare(
        `${this.#namespace}/1/extract-${process.hrtime.bigint()} ${chainId}`,
        parent,
        labels,
      );
      return false;
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'ERR_ALREADY_EXISTS', String(error));
      return true;
    }
  }

  close(): void {
    this.#client.close();
  }
}

export interface SnapshotterOptions {
  readonly blockdSocket?: string;
  readonly containerdSocket?: string;
  readonly socket?: string;
  /** Configuration after the paths. */
  readonly more?: string;
}

export class SnapshotterProcess {
  readonly directory: string;
  readonly root: string;
  readonly client: SnapshotsClient;
  readonly socket: string;
  #child: ChildProcess | undefined;

  private constructor(directory: string, socket: string) {
    this.directory = directory;
    this.root = join(directory, 'root');
    this.socket = socket;
    this.client = new SnapshotsClient(socket);
  }

  static async start(options: SnapshotterOptions = {}): Promise<SnapshotterProcess> {
    const directory = await mkdtemp('/var/tmp/obds.');
    const file = (name: string) => join(directory, name);
    const socket = options.socket ?? file('snapshotter.sock');
    const config = {
      socket,
      root: file('root'),
      blockd_socket: options.blockdSocket ?? file('blockd.sock'),
      containerd_socket: options.containerdSocket ?? file('containerd.sock'),
    };
    const lines = Object.entries(config).map(
      ([key, value]) => `${key} = ${JSON.stringify(value)}\n`,
    );
    writeFileSync(file('config.toml'), `${lines.join('')}${options.more ?? ''}`);
    const started = new SnapshotterProcess(directory, socket);
    await started.restart();
    return started;
  }

  /** Starts it, again after kill(), and waits until it serves. */
  async restart(): Promise<void> {
    const config = join(this.directory, 'config.toml');
    const child = spawn(
      process.execPath,
      [...programArguments('obd-snapshotter'), '--config', config],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    child.stderr.pipe(createWriteStream(join(this.directory, 'log'), { flags: 'a' }));
    this.#child = child;
    const deadline = Date.now() + START_MS_MAX;
    while (!(existsSync(this.socket) && (await this.#answers()))) {
      if (child.exitCode === null && Date.now() < deadline) await setTimeout(20);
      else {
        child.kill('SIGKILL');
        assert.fail(`it does not serve: ${this.log()}`);
      }
    }
  }

  async #answers(): Promise<boolean> {
    try {
      await this.client.list('name==nothing');
      return true;
    } catch {
      return false;
    }
  }

  log(): string {
    const path = join(this.directory, 'log');
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return null;
    if (child.exitCode === null) {
      const ended = once(child, 'exit');
      child.kill(signal);
      await ended;
    }
    return child.exitCode;
  }

  /** Ends it, and fails if mounts remain in its directory. */
  async stop(): Promise<void> {
    this.client.close();
    assert.equal(await this.end('SIGTERM'), 0, this.log());
    assert.deepEqual(mountsIn(this.directory), []);
    await rm(this.directory, { recursive: true });
  }
}

export function mountsIn(directory: string): string[] {
  const targets = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '');
  return targets.filter((target) => target.startsWith(`${directory}/`));
}

/** Runs `body` on a directory where the mounts of a snapshot are mounted, as containerd mounts them. */
export async function withMounted<T>(
  mounts: readonly Mount__Output[],
  body: (directory: string) => T | Promise<T>,
): Promise<T> {
  const target = await mkdtemp('/var/tmp/obdm.');
  const [mount] = mounts;
  assert.ok(mount !== undefined && mounts.length === 1);
  try {
    mountOn(mount, target);
    try {
      return await body(target);
    } finally {
      execFileSync('umount', [target]);
    }
  } finally {
    await rm(target, { recursive: true });
  }
}

function mountOn({ type, source, options }: Mount__Output, target: string): void {
  if (type === 'bind') {
    execFileSync('mount', ['--rbind', source, target]);
    if (options.includes('ro')) execFileSync('mount', ['-o', 'remount,bind,ro', target]);
    return;
  }
  // As containerd does: with relative paths, many layers fit into the single page of mount options.
  const text = options.join(',');
  const base = /lowerdir=(\/[^:,]*?\/snapshots)\//.exec(text)?.[1] ?? '/';
  execFileSync('mount', ['-t', type, '-o', text.replaceAll(`${base}/`, ''), source, target], {
    cwd: base,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
}

function sent<T>(value: T | null): T {
  assert.ok(value !== null);
  return value;
}
