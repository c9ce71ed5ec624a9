/** Runs obdconv as a person would: as a separate process, from the same build as the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { programArguments } from './program.js';

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
  const child = spawn(process.execPath, [...programArguments('obdconv'), ...args], {
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
