/** A daemon in a new directory, with the test's choice of standard error. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { BlockdClient } from '../../src/blockd/blockd-client.js';
import { messageOf } from '../../src/errors.js';
import { programArguments } from './program.js';
import { SnapshotsClient } from './snapshotter-process.js';

const START_MS_MAX = 60_000;
const DIGEST = `sha256:${'0'.repeat(64)}`;

export type Daemon = 'obd-blockd' | 'obd-snapshotter';

export class OutputDaemon {
  readonly directory: string;
  readonly configPath: string;
  readonly child: ChildProcess;
  readonly #program: Daemon;
  readonly #blockd: BlockdClient;
  readonly #snapshots: SnapshotsClient;
  #count = 0;
  #log = '';

  private constructor(program: Daemon, directory: string, child: ChildProcess) {
    this.#program = program;
    this.directory = directory;
    this.configPath = join(directory, 'config.toml');
    this.child = child;
    this.#blockd = new BlockdClient(join(directory, 'socket'));
    this.#snapshots = new SnapshotsClient(join(directory, 'socket'));
  }

  /**
   * @param stderr - A descriptor, `pipe` (in truth a socket), or `closed`.
   * @param entry - Arguments of node that start the program; by default the build's program.
   */
  static async start(
    program: Daemon,
    stderr: number | 'pipe' | 'closed',
    entry: readonly string[] = programArguments(program),
  ): Promise<OutputDaemon> {
    const directory = await mkdtemp('/var/tmp/obdo.');
    const config = join(directory, 'config.toml');
    writeFileSync(config, configOf(program, directory, ''));
    const args = [...entry, '--config', config];
    const child =
      stderr === 'closed'
        ? spawn('sh', ['-c', 'exec "$0" "$@" 2>&-', process.execPath, ...args], {
            stdio: 'ignore',
          })
        : spawn(process.execPath, args, { stdio: ['ignore', 'ignore', stderr] });
    const daemon = new OutputDaemon(program, directory, child);
    const deadline = Date.now() + START_MS_MAX;
    for (;;) {
      const problem = await daemon.#answers();
      if (problem === undefined) return daemon;
      if (child.exitCode === null && child.signalCode === null && Date.now() < deadline) {
        await setTimeout(20);
        continue;
      }
      await daemon.kill();
      assert.fail(`${program} does not serve: ${problem}`);
    }
  }

  /** Replaces the configuration; `more` comes after the paths. */
  configure(more: string): void {
    writeFileSync(this.configPath, configOf(this.#program, this.directory, more));
  }

  /** Makes one call that the daemon logs. */
  async logSomething(): Promise<void> {
    this.#count++;
    if (this.#program === 'obd-blockd') {
      const missing = join(this.directory, 'missing.json');
      await assert.rejects(this.#blockd.attach(`none-${this.#count}`, missing));
      return;
    }
    const annotations = {
      'containerd.io/snapshot/overlaybd/blob-digest': DIGEST,
      'containerd.io/snapshot/overlaybd/blob-size': '4096',
    };
    const chainId = `sha256:${this.#count.toString(16).padStart(64, '0')}`;
    assert.equal(await this.#snapshots.prepareLayer(chainId, '', annotations), false);
  }

  /** The device node of the image that `configPath` describes. obd-blockd only. */
  async attach(id: string, configPath: string): Promise<string> {
    return (await this.#blockd.attach(id, configPath)).path;
  }

  async detach(id: string): Promise<void> {
    await this.#blockd.detach(id);
  }

  /** Reads standard error from now on. */
  readLog(): void {
    this.child.stderr?.on('data', (piece: Buffer) => {
      this.#log += piece.toString();
    });
  }

  log(): string {
    return this.#log;
  }

  /** Fails unless the same process still serves. */
  async checkAlive(): Promise<void> {
    assert.equal(this.child.exitCode ?? this.child.signalCode, null, 'it has ended');
    assert.equal(await this.#answers(), undefined);
  }

  async #answers(): Promise<string | undefined> {
    const call =
      this.#program === 'obd-blockd' ? this.#blockd.list() : this.#snapshots.list('name==nothing');
    return await call.then(() => undefined, messageOf);
  }

  /** Ends it, and fails unless it ends well. */
  async stop(): Promise<void> {
    const ended = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    const [status] = await ended;
    this.#close();
    await rm(this.directory, { recursive: true });
    assert.equal(status, 0);
  }

  async kill(): Promise<void> {
    this.#close();
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const ended = once(this.child, 'exit');
      this.child.kill('SIGKILL');
      await ended;
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  #close(): void {
    this.#blockd.close();
    this.#snapshots.close();
  }
}

function configOf(program: Daemon, directory: string, more: string): string {
  const file = (name: string) => JSON.stringify(join(directory, name));
  const paths =
    program === 'obd-blockd'
      ? `nbd_socket = ${file('nbd')}\nstate_dir = ${file('state')}\n`
      : `root = ${file('root')}\nblockd_socket = ${file('none')}\ncontainerd_socket = ${file('none')}\n`;
  return `socket = ${file('socket')}\n${paths}${more}`;
}
