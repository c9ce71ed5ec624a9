/** Goal: programs that execute their arguments lead to the command, past their own options. Method: images in memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const program = elfBytes();
const COMMANDS = [
  ['tini', '--', 'server'],
  ['tini', '-g', '-e', '143', 'server', '-x'],
  ['env', '-i', 'A=1', 'server'],
  ['env', '-u', 'A', 'PATH=/elsewhere:/bin', 'server'],
  ['env', '-S', 'A=1 server -x'],
  ['gosu', 'redis', 'server'],
  ['setpriv', '--reuid', 'redis', '--clear-groups', '--', 'server'],
  ['timeout', '-s', 'TERM', '10', 'server'],
  ['find', '.', '-exec', 'server', '{}', '+'],
  ['/usr/bin/dumb-init', 'nice', '-n', '5', 'server'],
];

test('wrappers lead to the program that they execute', async () => {
  const files: Record<string, Uint8Array> = {
    '/bin/server': program,
    '/usr/bin/dumb-init': program,
  };
  for (const name of ['tini', 'env', 'gosu', 'setpriv', 'timeout', 'find', 'nice'])
    files[`/bin/${name}`] = program;
  for (const command of COMMANDS) {
    const paths = pathsOf(await predictionOf(files, command));
    assert.ok(paths.includes('/bin/server'), command.join(' '));
  }
});

test('a chain of wrappers ends after eight programs', async () => {
  const files = { '/bin/env': program, '/bin/server': program };
  const chain = (count: number) => [...Array.from({ length: count }, () => 'env'), 'server'];
  assert.ok(pathsOf(await predictionOf(files, chain(8))).includes('/bin/server'));
  assert.ok(!pathsOf(await predictionOf(files, chain(9))).includes('/bin/server'));
});
