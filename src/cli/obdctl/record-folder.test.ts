/**
 * Goal: a recording finds the folders of killed ones and removes these with their mounts, and no other folder.
 * Method: folders in a directory of their own; mounts and other owners need root.
 */
import assert from 'node:assert/strict';
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { mountAt } from '../../image/image-mount.js';
import { ownIdentity } from '../../io/process-identity.js';
import { outputOf, runProgram } from '../../io/run-program.js';
import {
  abandonedRecordFolders,
  makeRecordFolder,
  removeRecordFolder,
  rootIn,
} from './record-folder.js';

const isRoot = process.geteuid?.() === 0;
const earlier = process.env['TMPDIR'];
const parent = realpathSync(mkdtempSync(join(tmpdir(), 'obd-folders-')));
after(() => {
  if (earlier === undefined) delete process.env['TMPDIR'];
  else process.env['TMPDIR'] = earlier;
  rmSync(parent, { recursive: true });
});
beforeEach(() => {
  process.env['TMPDIR'] = parent;
  for (const name of readdirSync(parent)) rmSync(join(parent, name), { recursive: true });
});

/** As a process with this pid that started earlier has left it. */
async function abandoned(): Promise<string> {
  const folder = await makeRecordFolder();
  const [pid, , ...rest] = ownIdentity().split(' ');
  writeFileSync(join(folder, 'owner'), [pid, '1', ...rest].join(' '));
  return folder;
}

describe('abandonedRecordFolders()', () => {
  test('lists folders of processes that are gone, and not those of running ones', async () => {
    await makeRecordFolder();
    assert.deepEqual(await abandonedRecordFolders(), []);
    const left = await abandoned();
    assert.deepEqual(await abandonedRecordFolders(), [left]);
  });

  test('leaves folders without owner, links, and folders of other users alone', async () => {
    mkdtempSync(join(parent, 'obd-record-'));
    const left = await abandoned();
    symlinkSync(left, join(parent, 'obd-record-link'));
    assert.deepEqual(await abandonedRecordFolders(), [left]);
    if (!isRoot) return;
    chownSync(left, 65_534, 65_534);
    assert.deepEqual(await abandonedRecordFolders(), []);
  });
});

describe('removeRecordFolder()', () => {
  test('removes a folder with its files', async () => {
    const folder = await abandoned();
    writeFileSync(join(folder, 'config.json'), '{}');
    assert.equal(await removeRecordFolder(folder), true);
    assert.equal(existsSync(folder), false);
  });

  test('unmounts the root first', { skip: !isRoot && 'only root mounts' }, async () => {
    const folder = await abandoned();
    const root = rootIn(folder);
    await outputOf('mount', ['-t', 'tmpfs', 'none', root], 10_000);
    try {
      writeFileSync(join(root, 'file'), '');
      assert.equal(await removeRecordFolder(folder), true);
      assert.equal(await mountAt(root), undefined);
      assert.equal(existsSync(folder), false);
    } finally {
      await runProgram('umount', [root], 10_000);
    }
  });

  test('keeps what is in a root that is not unmounted', async () => {
    const folder = await abandoned();
    writeFileSync(join(rootIn(folder), 'file'), '');
    assert.equal(await removeRecordFolder(folder), false);
    assert.ok(existsSync(join(rootIn(folder), 'file')));
  });
});
