/** Runs NBD clients of other projects, if they are installed. */
import { execFile } from 'node:child_process';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { systemCode } from '../../src/errors.js';

const run = promisify(execFile);

/** Returns a client's output; or undefined, and skips the test, if the client is not installed. */
export async function runClient(
  t: TestContext,
  program: string,
  args: readonly string[],
  cwd = process.cwd(),
): Promise<string | undefined> {
  try {
    return (await run(program, args, { cwd })).stdout;
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    t.skip(`${program} is not installed`);
    return undefined;
  }
}
