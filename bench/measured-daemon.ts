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
  readonly #folder: string;
  #child: ChildProcess;

  private constructor(folder: string) {
    this.#folder = folder;
    this.client = new BlockdClient(join(folder, 'blockd.sock'));
    this.#child = this.#spawn();
  }

  /** Serves when it resolves. */
  static async start(parent: string): Promise<MeasuredDaemon> {
    const folder = await mkdtemp(join(parent, 'blockd-'));
    const paths = {
      socket: join(folder, 'blockd.sock'),
      nbd_socket: join(folder, 'nbd.sock'),
      state_dir: join(folder, 'state'),
    };
    const lines = Object.entries(paths).map(([key, path]) => `${key} = ${JSON.stringify(path)}\n`);
    await writeFile(join(folder, 'config.toml'), lines.join(''));
    const daemon = new MeasuredDaemon(folder);
    await daemon.#untilServing();
    return daemon;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Killed, and at once started again. Serves when it resolves. */
  async restart(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
    this.#child = this.#spawn();
    await this.#untilServing();
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

  #spawn(): ChildProcess {
    const config = join(this.#folder, 'config.toml');
    const child = spawn(process.execPath, [...programArguments('obd-blockd'), '--config', config], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const log = createWriteStream(join(this.#folder, 'log'), { flags: 'a' });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    return child;
  }

  async #untilServing(): Promise<void> {
    const deadline = performance.now() + START_MS;
    while (!existsSync(join(this.#folder, 'blockd.sock')) || !(await this.#answers())) {
      if (this.#child.exitCode !== null || performance.now() > deadline) {
        const text = await readFile(join(this.#folder, 'log'), 'utf8');
        throw new ObdError(ErrorCodes.Io, `obd-blockd does not start: ${text}`);
      }
      await sleep(20);
    }
  }

  async #answers(): Promise<boolean> {
    return await this.client.list().then(
      () => true,
      () => false,
    );
  }
}
