/** obd-blockd as it is built, with an empty cache, under a folder of the benchmark's. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlockdClient } from '../src/blockd/blockd-client.js';
import { ErrorCodes, ObdError } from '../src/errors.js';
import { programArguments } from '../test/support/program.js';

const START_MS = 20_000;

export class MeasuredDaemon {
  readonly client: BlockdClient;
  readonly #child: ChildProcess;
  readonly #folder: string;

  private constructor(client: BlockdClient, child: ChildProcess, folder: string) {
    this.client = client;
    this.#child = child;
    this.#folder = folder;
  }

  /** Serves when it resolves. */
  static async start(parent: string): Promise<MeasuredDaemon> {
    const folder = await mkdtemp(join(parent, 'blockd-'));
    const socket = join(folder, 'blockd.sock');
    const config = join(folder, 'config.toml');
    const paths = {
      socket,
      nbd_socket: join(folder, 'nbd.sock'),
      state_dir: join(folder, 'state'),
    };
    const lines = Object.entries(paths).map(([key, path]) => `${key} = ${JSON.stringify(path)}\n`);
    await writeFile(config, lines.join(''));
    const child = spawn(process.execPath, [...programArguments('obd-blockd'), '--config', config], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const log = createWriteStream(join(folder, 'log'));
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    const daemon = new MeasuredDaemon(new BlockdClient(socket), child, folder);
    const deadline = performance.now() + START_MS;
    while (!existsSync(socket) || !(await daemon.#answers())) {
      if (child.exitCode !== null || performance.now() > deadline) {
        const text = await readFile(join(folder, 'log'), 'utf8');
        throw new ObdError(ErrorCodes.Io, `obd-blockd does not start: ${text}`);
      }
      await sleep(20);
    }
    return daemon;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Detaches what it has attached. */
  async stop(): Promise<void> {
    this.client.close();
    if (this.#child.exitCode === null) {
      const ended = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      await ended;
    }
    await rm(this.#folder, { recursive: true });
  }

  async #answers(): Promise<boolean> {
    return await this.client.list().then(
      () => true,
      () => false,
    );
  }
}
