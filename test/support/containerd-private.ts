/**
 * A private containerd and registry for a test, under one directory in /var/tmp. Stopping them must leave nothing.
 * The quickstart's shell functions start and stop them (scripts/private-services.sh).
 *
 * containerd there has the snapshotters overlayfs and native, and obd-ts as a proxy plugin at `snapshotterSocket`:
 * start one there before its first use.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';

const ROOT = repositoryRoot();
const SCRIPT = join(ROOT, 'scripts', 'private-services.sh');
const PATH = `${process.env['PATH']}:/usr/local/sbin:/usr/sbin:/sbin`;
/** Programs of the same build as this file. */
const BIN = join(import.meta.dirname, '..', '..', 'src', 'bin');
const EXTENSION = import.meta.filename.slice(-2);
const LOADER = EXTENSION === 'ts' ? ['--import', 'tsx'] : [];
const START_MS_MAX = 20_000;
const OUTPUT_BYTES_MAX = 64 << 20;
const run = promisify(execFile);

/** Why tests with a PrivateContainerd cannot run here; false if they can. For the option `skip` of a test. */
export const unfit = reasonToSkip();

export interface ContainerdOptions {
  /** Folder of another containerd's programs. */
  readonly folder?: string | undefined;
  /** The whole configuration; by default the one of scripts/private-services.sh, without CRI. */
  readonly configure?: (containerd: PrivateContainerd) => string;
  /**
   * Runs when the registry serves and containerd does not yet. containerd with CRI calls its snapshotter at its start, and
   * pauses for seconds before it retries.
   */
  readonly first?: (containerd: PrivateContainerd) => Promise<void>;
}

export class PrivateContainerd {
  /** Short, because paths of unix sockets must be short. */
  readonly directory: string;
  /** host:port, speaking plain HTTP. */
  readonly registry: string;
  readonly socket: string;
  /** Where containerd looks for the snapshotter obd-ts. */
  readonly snapshotterSocket: string;
  /** The namespace of ctr(), and of the quickstart's functions. */
  readonly namespace: string;

  readonly #path: string;

  private constructor(directory: string, registry: string, folder: string | undefined) {
    this.directory = directory;
    this.registry = registry;
    this.#path = folder === undefined ? PATH : `${folder}:${PATH}`;
    this.socket = join(directory, 'containerd.sock');
    this.snapshotterSocket = join(directory, 'snapshotter.sock');
    this.namespace = `obd-ts-${basename(directory).replace(/^.*\./, '')}`;
  }

  /** @param options - Another containerd than the one found first, or another configuration. */
  static async start({
    folder,
    configure,
    first,
  }: ContainerdOptions = {}): Promise<PrivateContainerd> {
    const directory = await mkdtemp('/var/tmp/obdt.');
    try {
      await shell(directory, 'start_registry "$DIR"');
      const registry = (await shell(directory, 'registry_address "$DIR"')).trim();
      const made = new PrivateContainerd(directory, registry, folder);
      if (configure !== undefined) {
        await writeFile(join(directory, 'containerd.toml'), configure(made));
      }
      await first?.(made);
      await shell(directory, 'start_containerd "$DIR"', made.#path);
      return made;
    } catch (error) {
      await shell(directory, 'stop_services "$DIR"');
      await rm(directory, { recursive: true });
      throw error;
    }
  }

  /**
   * Starts obd-blockd and obd-snapshotter, from the same build as the test. stop() stops them too.
   *
   * @param more - Configuration of the snapshotter after the paths.
   */
  async startObd(more = ''): Promise<void> {
    const file = (name: string) => join(this.directory, name);
    const blockdSocket = file('blockd.sock');
    await this.#startDaemon('blockd', blockdSocket, {
      socket: blockdSocket,
      nbd_socket: file('nbd.sock'),
      state_dir: file('blockd'),
    });
    await this.#startDaemon(
      'snapshotter',
      this.snapshotterSocket,
      {
        socket: this.snapshotterSocket,
        root: file('snapshotter'),
        blockd_socket: blockdSocket,
        containerd_socket: this.socket,
      },
      more,
    );
  }

  /** Starts a new session and writes the process id to a file, as stop_service() expects. */
  async #startDaemon(
    name: string,
    socket: string,
    config: Record<string, string>,
    more = '',
  ): Promise<void> {
    const file = (suffix: string) => join(this.directory, `${name}.${suffix}`);
    const toml = Object.entries(config).map(
      ([key, value]) => `${key} = ${JSON.stringify(value)}\n`,
    );
    await writeFile(file('toml'), toml.join('') + more);
    const log = openSync(file('log'), 'a');
    const command = [...LOADER, `${BIN}/obd-${name}.${EXTENSION}`, '--config', file('toml')];
    const child = spawn(process.execPath, command, { detached: true, stdio: ['ignore', log, log] });
    closeSync(log);
    await writeFile(join(this.directory, 'pids', name), `${child.pid}`);
    const deadline = Date.now() + START_MS_MAX;
    while (!existsSync(socket)) {
      const said = () => readFileSync(file('log'), 'utf8');
      assert.equal(child.exitCode, null, `obd-${name} ended: ${said()}`);
      assert.ok(Date.now() < deadline, `obd-${name} does not serve: ${said()}`);
      await setTimeout(20);
    }
    child.unref();
  }

  /** @returns The output of `ctr`. */
  async ctr(...args: readonly string[]): Promise<string> {
    const options = ['--address', this.socket, '--namespace', this.namespace];
    const { stdout } = await run('ctr', [...options, ...args], {
      maxBuffer: OUTPUT_BYTES_MAX,
      env: { ...process.env, PATH: this.#path },
    });
    return stdout;
  }

  /** Copies an image of an OCI layout (`DIR:TAG`) into the registry and returns its reference there. */
  async push(layout: string, name: string, ...options: readonly string[]): Promise<string> {
    const reference = `${this.registry}/${name}`;
    await run('skopeo', [
      '--insecure-policy',
      'copy',
      '--quiet',
      ...options,
      '--dest-tls-verify=false',
      `oci:${layout}`,
      `docker://${reference}`,
    ]);
    return reference;
  }

  /** The lines of the registry's access log: the actual requests. */
  async requests(): Promise<string[]> {
    const text = await readFile(join(this.directory, 'registry.log'), 'utf8');
    return text.split('\n').filter((line) => /"(?:GET|HEAD|POST|PUT|PATCH) /.test(line));
  }

  /** Stops and removes everything, and fails if a process, mount, loop device or cgroup remains. */
  async stop(): Promise<void> {
    const left = await shell(this.directory, 'stop_services "$DIR"; leftovers "$DIR"');
    if (left === '') await rm(this.directory, { recursive: true });
    assert.equal(left, '', `left behind, see ${this.directory}/stop.log`);
  }
}

async function shell(directory: string, body: string, path = PATH): Promise<string> {
  const script = `set -euo pipefail; . "$1"; DIR=$2; ${body}`;
  const { stdout } = await run('bash', ['-c', script, 'private-services', SCRIPT, directory], {
    cwd: ROOT,
    env: { ...process.env, PATH: path },
  });
  return stdout;
}

function reasonToSkip(): string | false {
  if (process.geteuid?.() !== 0) return 'a private containerd needs root';
  for (const program of ['containerd', 'ctr', 'docker-registry', 'skopeo']) {
    try {
      execFileSync('sh', ['-c', `command -v ${program}`], { env: { PATH }, stdio: 'ignore' });
    } catch {
      return `a private containerd needs ${program}`;
    }
  }
  return false;
}

function repositoryRoot(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  return root;
}
