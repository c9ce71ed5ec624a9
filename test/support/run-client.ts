/** Running the NBD clients of other projects, where they are installed. */
import { execFile } from 'node:child_process';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { systemCode } from '../../src/errors.js';

const run = promisify(execFile);

/** What a client prints, or undefined, and the test is skipped, where there is none. */
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
