/** Runs obdctl as a person would: as a separate process, from the same build as the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { programArguments } from './program.js';

export interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
}

export function startObdctl(...args: readonly string[]): Running {
  const child = spawn(process.execPath, [...programArguments('obdctl'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const status = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  const output = Promise.all([status, text(child.stdout), text(child.stderr)]);
  const finished = output.then(([status, stdout, stderr]) => ({ status, stdout, stderr }));
  return { child, finished };
}

export async function obdctl(...args: readonly string[]): Promise<Finished> {
  return await startObdctl(...args).finished;
}
