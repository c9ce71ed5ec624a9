/**
 * One case of `npm run test:trust`: an attempt to make obd-ts lie, harm or give up, with the expected behaviour.
 *
 * A case is a node:test test whose result is also one line: its item, its name, the expected and the seen behaviour. A
 * diagnostic carries the line, and test/trust/run.ts prints it.
 */
import { type TestContext, test } from 'node:test';
import { messageOf } from '../../src/errors.js';

/** Prefix of the diagnostic that holds a case's line as JSON. */
export const TRUST_LINE = 'trust-case ';

export interface TrustLine {
  readonly item: string;
  readonly name: string;
  readonly expected: string;
  readonly seen: string;
  readonly seconds: number;
}

export interface TrustOptions {
  /** Left out of `--quick`, because it is slow or cannot run in CI. */
  readonly slow?: boolean;
  /** Why the case cannot run here. */
  readonly skip?: string | undefined;
  /** ms */
  readonly timeout?: number;
}

/** The seed of this run; the same seed gives the same faults in the same order. */
export const trustSeed = Number(process.env['OBD_TRUST_SEED'] ?? '1');
const isQuick = process.env['OBD_TRUST_QUICK'] === '1';

/**
 * Registers a case.
 *
 * @param item - The guarantee that it tests: identity, waiting, limits, logging, first-contact, commands.
 * @param expected - The expected behaviour, in a few words.
 * @param attempt - Asserts; its result is printed as seen. An error fails the case, and is printed as seen.
 */
export function trustCase(
  item: string,
  name: string,
  expected: string,
  attempt: (t: TestContext) => Promise<string>,
  { slow = false, skip, timeout = 120_000 }: TrustOptions = {},
): void {
  const why = skip ?? (slow && isQuick ? 'only in the full run' : undefined);
  const options = why === undefined ? { timeout } : { skip: why };
  test(`${item}: ${name}`, options, async (t) => {
    const startedMs = performance.now();
    const say = (seen: string) => {
      const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
      const line: TrustLine = { item, name, expected, seen, seconds };
      t.diagnostic(TRUST_LINE + JSON.stringify(line));
    };
    try {
      say(await attempt(t));
    } catch (error) {
      say(messageOf(error).split('\n', 1)[0] ?? '');
      throw error;
    }
  });
}
