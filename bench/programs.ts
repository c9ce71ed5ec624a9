/** The programs that are measured, or that measure: qemu-nbd as the peer of our daemon, and fio. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { interruption } from '../src/cli/interruption.js';
import { ErrorCodes, ObdError } from '../src/errors.js';

const execute = promisify(execFile);
const START_MS = 5_000;

/**
 * Runs a program to its end. An interrupt ends it, so that its caller can clean up.
 *
 * @returns Its standard output. @throws {ObdError} `Host` if it is not installed, `Io` if it fails.
 */
export async function run(program: string, args: readonly string[]): Promise<string> {
  const signal = interruption();
  try {
    return (await execute(program, args, { maxBuffer: 16 << 20, signal })).stdout;
  } catch (error) {
    signal.throwIfAborted();
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (!missing) throw new ObdError(ErrorCodes.Io, `${program} failed: ${error}`, {}, error);
    throw new ObdError(ErrorCodes.Host, `Cannot run the benchmark: ${program} is not installed`);
  }
}

/** `qemu-nbd` serving one file read-only. */
export class QemuNbd {
  readonly uri: string;
  readonly #child: ChildProcess;

  private constructor(uri: string, child: ChildProcess) {
    this.uri = uri;
    this.#child = child;
  }

  static async start(path: string, format: 'raw' | 'qcow2', socket: string): Promise<QemuNbd> {
    const args = ['--read-only', '--persistent', '--shared=16', `--format=${format}`];
    const child = spawn('qemu-nbd', [...args, `--socket=${socket}`, '--export-name=disk', path], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const server = new QemuNbd(`nbd+unix:///disk?socket=${socket}`, child);
    const deadline = performance.now() + START_MS;
    while (!existsSync(socket)) {
      if (child.exitCode !== null || performance.now() > deadline) {
        throw new ObdError(ErrorCodes.Io, `qemu-nbd does not serve ${path}`);
      }
      await sleep(10);
    }
    return server;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await ended;
  }
}

export interface Workload {
  readonly name: string;
  readonly unit: 'reads/s' | 'MiB/s';
  readonly rw: 'randread' | 'read';
  readonly blockBytes: number;
  readonly depth: number;
}

/** The target of fio: an NBD export, or a block device past the page cache. */
export type FioTarget = { readonly uri: string } | { readonly device: string };

/** One run of fio over the whole disk. @returns The rate in the workload's unit, and how many reads that was. */
export async function fio(
  workload: Workload,
  target: FioTarget,
  seconds: number,
): Promise<{ rate: number; reads: number }> {
  const where =
    'uri' in target
      ? ['--ioengine=nbd', `--uri=${target.uri}`]
      : ['--ioengine=libaio', '--direct=1', '--readonly', `--filename=${target.device}`];
  const text = await run('fio', [
    '--name=bench',
    ...where,
    `--rw=${workload.rw}`,
    `--bs=${workload.blockBytes}`,
    `--iodepth=${workload.depth}`,
    `--runtime=${seconds}`,
    '--time_based',
    '--randrepeat=1',
    '--output-format=json',
  ]);
  const { read } = JSON.parse(text.slice(text.indexOf('{'))).jobs[0];
  const rate = workload.unit === 'reads/s' ? read.iops : read.bw_bytes / 2 ** 20;
  return { rate, reads: read.total_ios };
}

/** Resident memory of a process now, in MiB. */
export function residentMib(pid: number): number {
  const kib = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) / 1024;
}
