/**
 * Goal: `obdctl doctor` repeats what containerd says of its own configuration, and runs on any Node.
 * Method: the host's containerd with a broken file; obdctl in a process that reports an old version of Node.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { programArguments } from '../support/program.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-doctor-'));
after(() => rmSync(directory, { recursive: true }));

const hasContainerd = spawnSync('containerd', ['--version']).status === 0;
const OLD =
  'data:text/javascript,Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.1.0" } })';

const run = (...args: readonly string[]) =>
  spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });

test('doctor shows the message of containerd', {
  skip: hasContainerd ? false : 'needs containerd',
}, () => {
  const path = join(directory, 'config.toml');
  writeFileSync(path, 'version = 2\nx = [');
  const { stdout } = run(...programArguments('obdctl'), 'doctor', '--containerd-config', path);
  // The parsers of TOML in containerd 1 and 2.
  assert.match(stdout, /config dump" fails: .*(?:unterminated array|array is incomplete)/);
});

test('commands other than doctor refuse an old Node', () => {
  const old = ['--import', OLD, ...programArguments('obdctl')];
  const { status, stderr } = run(...old, 'devices');
  assert.notEqual(status, 0);
  assert.match(stderr, /Cannot run on Node 20\.1\.0.*install-deps/);
  assert.doesNotMatch(run(...old, 'doctor').stderr, /Cannot run/);
});
