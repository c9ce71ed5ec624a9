/**
 * Goal: a layer that goes deeper than any path in a container is refused with that reason, by either way of getting
 * there; one that goes as deep as a path can is made and removed again without running out of stack.
 * Method: layers of one file far down, by its own name and through a link, on a disk with inodes enough.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type TarMember, tarOf } from '../../test/support/tar-builder.js';
import { ErrorCodes } from '../errors.js';
import { Ext4FileSystem } from '../ext4/ext4-file-system.js';
import { ROOT_INODE } from '../ext4/superblock.js';
import { TarReader } from '../tar/tar-reader.js';
import { applyLayer } from './apply-layer.js';
import { ChangeSet } from './change-set.js';

const DISK_BYTES = 128 << 20;
const DEPTH_MAX = 2048;
const TOO_DEEP = { code: ErrorCodes.Unsupported, message: /more than 2048 directories deep/ };

const directory = mkdtempSync(join(tmpdir(), 'obd-deep-'));
after(() => rmSync(directory, { recursive: true }));

let disks = 0;

function emptyDisk(): Ext4FileSystem {
  const device = new ChangeSet(join(directory, `${++disks}`), DISK_BYTES, undefined);
  return Ext4FileSystem.format(device, { uuid: Buffer.alloc(16, 7) });
}

async function apply(fs: Ext4FileSystem, ...members: readonly TarMember[]): Promise<void> {
  async function* source(): AsyncGenerator<Uint8Array> {
    yield tarOf(members);
  }
  await applyLayer(fs, new TarReader(source(), 'test'), { label: 'layer', warn: () => {} });
}

const levels = (depth: number) => 'd/'.repeat(depth);

test('as deep as a path can name', async () => {
  const fs = emptyDisk();
  await apply(fs, { name: `${levels(DEPTH_MAX)}f` });
  await apply(fs, { name: '.wh.d' });
  assert.equal(fs.lookup(ROOT_INODE, Buffer.from('d')), undefined);
});

test('deeper by its name', async () => {
  await assert.rejects(apply(emptyDisk(), { name: `${levels(100_000)}f` }), TOO_DEEP);
});

test('deeper through a link', async () => {
  const half = levels(DEPTH_MAX / 2 + 1);
  const link = { name: 'link', type: '2', linkName: half };
  const members = [{ name: `${half}f` }, link, { name: `link/${half}f` }];
  await assert.rejects(apply(emptyDisk(), ...members), TOO_DEEP);
});
