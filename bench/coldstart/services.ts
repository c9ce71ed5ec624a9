/**
 * The daemons of one run, at the near end of the link, with all their state in one new folder. They are started and ended by
 * the functions of scripts/private-services.sh; whatever remains after stop() is an error.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { interruption } from '../../src/cli/interruption.js';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { ROOT } from './folders.js';

const TICKS_PER_SECOND = 100;
const OUTPUT_BYTES_MAX = 16 << 20;

/** Seconds of CPU time. */
export interface CpuTime {
  /** The snapshotter and the daemons that belong to it. */
  readonly daemons: number;
  /** containerd and its shims. */
  readonly containerd: number;
}

export class Services {
  readonly directory: string;
  /** containerd's, for ctr. */
  readonly namespace: string;
  readonly #where: readonly string[];
  readonly #path: string;

  private constructor(directory: string, where: readonly string[], path: string) {
    this.directory = directory;
    this.namespace = `obd-ts-${basename(directory).replace(/^.*\./, '')}`;
    this.#where = where;
    this.#path = path;
  }

  /** @param where - Options of nsenter. @param path - Where its programs are searched: PATH. */
  static async make(where: readonly string[], path: string): Promise<Services> {
    return new Services(await mkdtemp('/var/tmp/obdcs.'), where, path);
  }

  file(name: string): string {
    return join(this.directory, name);
  }

  /** How to run a program where the services run. */
  command(...command: readonly string[]): { file: string; args: string[]; env: NodeJS.ProcessEnv } {
    const env = { ...process.env, PATH: this.#path };
    return { file: 'nsenter', args: [...this.#where, ...command], env };
  }

  /** `ctr` with the address and namespace of this containerd. */
  ctr(...args: readonly string[]): string[] {
    return this.client('ctr', ...args);
  }

  /** A program that takes both as `ctr` does. */
  client(program: string, ...args: readonly string[]): string[] {
    const address = ['--address', this.file('containerd.sock')];
    return [program, ...address, '--namespace', this.namespace, ...args];
  }

  /** Runs a program to its end. @throws {ObdError} `Io` if it fails. */
  async run(command: readonly string[], signal = interruption()): Promise<void> {
    const { file, args, env } = this.command(...command);
    const child = spawn(file, args, { env, signal, stdio: ['ignore', 'ignore', 'pipe'] });
    const ended = once(child, 'close');
    const problem = await text(child.stderr);
    const [status] = await ended;
    if (status !== 0) throw new ObdError(ErrorCodes.Io, `${command.join(' ')} failed: ${problem}`);
  }

  /** Starts a program that serves once `ready`, a shell command, succeeds. */
  async start(name: string, ready: string, ...command: readonly string[]): Promise<void> {
    const body = `name=$3; ready=$4; shift 4; start_service "$DIR" "$name" "$@"; await_service "$DIR" "$name" eval "$ready"`;
    await this.#shell(body, name, ready, ...command);
  }

  /** User and system time of all that runs so far. */
  cpuTime(): CpuTime {
    let daemons = 0;
    let containerd = 0;
    for (const pid of readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))) {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
        if (!command.includes(`${this.directory}/`)) continue;
        const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
          .replace(/^.*\) /s, '')
          .split(' ');
        // Fields 14 to 17: of itself, and of its children that have ended.
        const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
        const program = basename(command.split('\0')[0] ?? '');
        if (program.startsWith('containerd-shim') || program === 'containerd') containerd += ticks;
        else if (program !== 'ctr' && !command.includes('rpull')) daemons += ticks;
      } catch {
        // It has ended.
      }
    }
    return { daemons: daemons / TICKS_PER_SECOND, containerd: containerd / TICKS_PER_SECOND };
  }

  /** @throws {ObdError} `Io` if a process, mount, loop device or cgroup is left. */
  async stop(): Promise<void> {
    const left = await this.#shell('stop_services "$DIR"; leftovers "$DIR"');
    if (left !== '') throw new ObdError(ErrorCodes.Io, `Left behind in ${this.directory}: ${left}`);
    await rm(this.directory, { recursive: true });
  }

  async #shell(body: string, ...args: readonly string[]): Promise<string> {
    const script = `set -euo pipefail; . "$1"; DIR=$2; ${body}`;
    const services = join(ROOT, 'scripts/private-services.sh');
    const parts = ['bash', '-c', script, 'services', services, this.directory, ...args];
    const { file, args: all, env } = this.command(...parts);
    const { stdout } = await promisify(execFile)(file, all, {
      cwd: ROOT,
      env,
      maxBuffer: OUTPUT_BYTES_MAX,
    });
    return stdout;
  }
}
