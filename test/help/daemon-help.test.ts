/**
 * Goal: the configuration that a daemon's --help shows can be pasted into a file as it is.
 * Method: --help of the programs, whose output must hold each line of the example.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { BLOCKD_CONFIG_EXAMPLE } from '../../src/blockd/blockd-config.js';
import { SNAPSHOTTER_CONFIG_EXAMPLE } from '../../src/snapshotter/snapshotter-config.js';
import { programArguments } from '../support/program.js';

for (const [name, example] of [
  ['obd-blockd', BLOCKD_CONFIG_EXAMPLE],
  ['obd-snapshotter', SNAPSHOTTER_CONFIG_EXAMPLE],
] as const) {
  test(`${name} --help shows its example configuration line by line`, () => {
    const options = { encoding: 'utf8', env: { ...process.env, COLUMNS: '80' } } as const;
    const help = execFileSync(process.execPath, [...programArguments(name), '--help'], options);
    assert.ok(help.includes(example.trimEnd()), help);
  });
}
