/** Runs obd-blockd as a process in a new directory of /var/tmp, and finds its leftovers. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { BlockdClient } from '../../src/blockd/blockd-client.js';
import { fuseFile } from '../../src/blockdev/fuse/fuse-file.js';
import { programArguments } from './program.js';
import { mountsIn } from './snapshotter-process.js';

/** In an emulated machine, next to another one, the start has taken more than a minute. */
const START_MS_MAX = 180_000;
const STOP_MS_MAX = 30_000;

/** Why the daemon cannot run here; false if it can. */
export const blockdUnfit = reasonToSkip();

export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export class BlockdProcess {
  readonly directory: string;
  readonly socket: string;
  readonly stateDirectory: string;
  readonly configPath: string;
  readonly client: BlockdClient;
  #child: ChildProcess | undefined;

  private constructor(directory: string) {
    this.directory = directory;
    this.socket = join(directory, 'blockd.sock');
    this.stateDirectory = join(directory, 'state');
    this.configPath = join(directory, 'config.toml');
    this.client = new BlockdClient(this.socket);
  }

  /**
   * @param more - Configuration after the paths.
   * @param prepare - Called with the state directory before the daemon starts.
   */
  static async start(
    more = '',
    prepare: (stateDirectory: string) => void = () => {},
  ): Promise<BlockdProcess> {
    const daemon = new BlockdProcess(await mkdtemp('/var/tmp/obdb.'));
    prepare(daemon.stateDirectory);
    const paths = {
      socket: daemon.socket,
      nbd_socket: join(daemon.directory, 'nbd.sock'),
      state_dir: daemon.stateDirectory,
    };
    const lines = Object.entries(paths).map(([key, path]) => `${key} = ${JSON.stringify(path)}\n`);
    writeFileSync(daemon.configPath, `${lines.join('')}${more}`);
    await daemon.restart();
    return daemon;
  }

  /** Runs `body` with a daemon that must leave nothing; a failed test only ends the daemon. */
  static async with(body: (daemon: BlockdProcess) => Promise<void>): Promise<void> {
    const daemon = await BlockdProcess.start();
    try {
      await body(daemon);
    } catch (error) {
      await daemon.end('SIGTERM');
      throw error;
    }
    await daemon.stop();
  }

  /** Starts it, again after end(), and waits until it serves. */
  async restart(): Promise<void> {
    const child = spawnBlockd('--config', this.configPath);
    child.stderr?.pipe(createWriteStream(join(this.directory, 'log'), { flags: 'a' }));
    this.#child = child;
    const deadline = Date.now() + START_MS_MAX;
    while (!(await this.#answers())) {
      if (child.exitCode === null && Date.now() < deadline) await setTimeout(20);
      else {
        child.kill('SIGKILL');
        assert.fail(`it does not serve: ${this.logText()}`);
      }
    }
  }

  async #answers(): Promise<boolean> {
    if (!existsSync(this.socket)) return false;
    return await this.client.list().then(
      () => true,
      () => false,
    );
  }

  /** Process id of the running daemon. */
  get pid(): number {
    assert.ok(this.#child?.pid !== undefined);
    return this.#child.pid;
  }

  logText(): string {
    const path = join(this.directory, 'log');
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  /** Log lines of all runs. */
  log(): LogLine[] {
    const lines = this.logText().split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as LogLine);
  }

  async logged(found: (line: LogLine) => boolean): Promise<LogLine> {
    const deadline = Date.now() + 5_000;
    for (;;) {
      const line = this.log().find(found);
      if (line !== undefined) return line;
      if (Date.now() >= deadline) assert.fail(`it did not log that:\n${this.logText()}`);
      await setTimeout(20);
    }
  }

  /** @returns Its exit status. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return null;
    if (child.exitCode === null) {
      const ended = once(child, 'exit', { signal: AbortSignal.timeout(STOP_MS_MAX) });
      child.kill(signal);
      await ended;
    }
    return child.exitCode;
  }

  /** Its mounts, loop devices and processes, without the daemon itself. */
  debris(): string[] {
    const devices = `${this.stateDirectory}/devices/`;
    return [
      ...mountsIn(join(this.stateDirectory, 'devices')).map((path) => `mount ${path}`),
      ...loops().filter((loop) => loop.includes(devices)),
      ...processesOn(devices),
    ];
  }

  /** Ends it, and fails unless it ends well and leaves nothing. */
  async stop(): Promise<void> {
    this.client.close();
    const status = await this.end('SIGTERM');
    assert.equal(status, 0, this.logText());
    assert.deepEqual(this.debris(), []);
    assert.deepEqual(filesIn(join(this.stateDirectory, 'devices')), []);
    assert.ok(!existsSync(this.socket));
    await rm(this.directory, { recursive: true });
  }
}

/** Lists everything except folders. */
function filesIn(directory: string): string[] {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
}

export function spawnBlockd(...args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [...programArguments('obd-blockd'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

function loops(): string[] {
  const args = ['--noheadings', '--raw', '--list', '--output', 'NAME,BACK-FILE'];
  return execFileSync('losetup', args, { encoding: 'utf8' }).split('\n');
}

function processesOn(directory: string): string[] {
  const pids = readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name));
  return pids.flatMap((pid) => {
    let command: string;
    try {
      command = readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
    } catch {
      return [];
    }
    return command.includes(directory) ? [`process ${command}`] : [];
  });
}

function reasonToSkip(): string | false {
  if (process.geteuid?.() !== 0) return 'block devices need root';
  if (!existsSync('/dev/fuse') || !existsSync('/dev/loop-control')) return 'no FUSE or loop here';
  return fuseFile() === undefined ? 'native/fuse-file is not built' : false;
}
