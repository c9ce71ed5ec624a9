/**
 * Goal: removeOrphans() cancels the uploads of a killed run before it removes their notes, and never throws.
 * Method: directories of a process that has ended, and a cancel function that looks at the disk.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ownIdentity } from '../io/process-identity.js';
import { removeOrphans } from './run-directory.js';

/** Another start time than that of this process: the pid was used again. */
const ENDED = ownIdentity().replace(/ [0-9]+ /, ' 1 ');
const SESSION = { host: 'localhost', repository: 'team/app', url: 'http://localhost/upload' };

function parentWithOrphan(t: { after(body: () => void): void }): { parent: string; path: string } {
  const parent = mkdtempSync(join(tmpdir(), 'orphans-'));
  t.after(() => rmSync(parent, { recursive: true, force: true }));
  const path = join(parent, 'obdconv-abcdef');
  mkdirSync(path);
  writeFileSync(join(path, 'owner'), ENDED);
  writeFileSync(join(path, 'upload-0'), JSON.stringify(SESSION));
  return { parent, path };
}

test('removeOrphans() cancels uploads while their notes are still there', async (t) => {
  const { parent, path } = parentWithOrphan(t);
  const noted: boolean[] = [];
  await removeOrphans(parent, async (session) => {
    assert.deepEqual(session, SESSION);
    await Promise.resolve();
    noted.push(existsSync(join(path, 'upload-0')));
  });
  assert.deepEqual(noted, [true]);
  assert.ok(!existsSync(path));
});

test('removeOrphans() removes the directory if the registry refuses to cancel', async (t) => {
  const { parent, path } = parentWithOrphan(t);
  await removeOrphans(parent, () => Promise.reject(new Error('refused')));
  assert.ok(!existsSync(path));
});
