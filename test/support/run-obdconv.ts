/** Runs obdconv as a person would: a process of its own, from the same build as the test. */
import { type ChildProcess, spawn } from 'node:child_process';

const SELF = import.meta.filename;
const COMMAND = SELF.replace(/test\/support\/run-obdconv\.(ts|js)$/, 'src/bin/obdconv.$1');

export interface Finished {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
}

export function startObdconv(args: readonly string[], environment = {}): Running {
  // Under tsx, its loader flags are what makes a .ts file run.
  const flags = process.execArgv.filter((flag) => !flag.startsWith('--test'));
  const child = spawn(process.execPath, [...loaderFlags(flags), COMMAND, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (piece: Buffer) => {
    stdout += piece.toString();
  });
  child.stderr.on('data', (piece: Buffer) => {
    stderr += piece.toString();
  });
  const finished = new Promise<Finished>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
  return { child, finished };
}

export async function runObdconv(args: readonly string[], environment = {}): Promise<Finished> {
  return await startObdconv(args, environment).finished;
}

/** Only flags that load code, with their values: `--require x`, `--import y`. */
function loaderFlags(flags: readonly string[]): string[] {
  const kept: string[] = [];
  flags.forEach((flag, i) => {
    if (flag === '--require' || flag === '--import') kept.push(flag, flags[i + 1] as string);
  });
  return kept;
}
