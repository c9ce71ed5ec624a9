/**
 * Goal: a start that walks through the whole tree and then reads files finds the others in the kernel's cache; one that does only
 * the one or the other does not.
 * Method: an ext4 of many directories on a device of the fuse transport, mounted; find(1) walks, the test reads files, and
 * fincore(1) says how much of the others the kernel has. Needs root.
 */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { blockdUnfit } from '../support/blockd-process.js';
import { directoryDisk } from '../support/directory-disk.js';
import { PAGE_BYTES } from '../support/proved-layer.js';
import { ReferrerRegistry } from '../support/referrer-registry.js';
import { placeImage, startLayer } from '../support/start-image.js';
import { StartNode } from '../support/start-node.js';

/** The daemon is in this process: it answers what the programs read. */
const run = promisify(execFile);
const DISK_BYTES = 24 << 20;
const DIRECTORIES = 150;
const FILE_BYTES = 100 << 10;
/** About as much as one fetch brings: read as a whole, and not one behind the other, which would be a sweep. */
const GROUP = 5;
const GROUPS = DIRECTORIES / GROUP;
const READ_GROUPS = 10;
const GROUP_STEP = 7;
const AHEAD = 'files of the image read ahead';
const unfit =
  blockdUnfit || (spawnSync('fincore', ['--version']).status === 0 ? undefined : 'needs fincore');

const { bytes: disk, files } = directoryDisk(DISK_BYTES, DIRECTORIES, FILE_BYTES);
const pageOf = (page: number) => disk.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
const image = { disk, layers: [startLayer(DISK_BYTES, pageOf)] };
const names = [...files.keys()];
const groups = Array.from({ length: GROUPS }, (_, i) => (i * GROUP_STEP) % GROUPS);
const isRead = (i: number) => groups.indexOf(Math.floor(i / GROUP)) < READ_GROUPS;
const others = names.filter((_, i) => !isRead(i));

async function mounted(t: TestContext) {
  const registry = await ReferrerRegistry.start();
  const node = await StartNode.start();
  const directory = join(node.directory, 'mnt');
  mkdirSync(directory);
  t.after(async () => {
    await run('umount', [directory]).catch(() => {});
    await node.stop();
    await registry.stop();
  });
  const started = await node.begin(placeImage(registry, image));
  await run('mount', ['-t', 'ext4', '-o', 'ro', started.path, directory]);
  return { node, directory };
}

async function readRight(directory: string, name: string): Promise<void> {
  assert.ok((await readFile(join(directory, name))).equals(files.get(name)!), name);
}

async function readSome(directory: string): Promise<void> {
  for (const group of groups.slice(0, READ_GROUPS)) {
    for (const name of names.slice(group * GROUP, (group + 1) * GROUP)) {
      await readRight(directory, name);
    }
  }
}

/** How many of the files that were not read the kernel has as a whole. */
async function residentFiles(directory: string): Promise<number> {
  let resident = 0;
  for (const name of others) {
    const { stdout } = await run('fincore', ['-n', '-o', 'PAGES', join(directory, name)]);
    if (Number(stdout.trim()) === FILE_BYTES / PAGE_BYTES) resident++;
  }
  return resident;
}

describe('a start', { skip: unfit, concurrency: true }, () => {
  test('that has walked through the tree and reads files finds the others in the kernel', async (t) => {
    const { node, directory } = await mounted(t);
    await run('find', [directory]);
    await readSome(directory);
    await node.logged(AHEAD);
    assert.equal(await residentFiles(directory), others.length);
    for (const name of names) await readRight(directory, name);
    assert.deepEqual(node.warnings(), []);
  });

  test('that only walks gets nothing', async (t) => {
    const { node, directory } = await mounted(t);
    await run('find', [directory]);
    await sleep(500);
    assert.equal(await residentFiles(directory), 0);
    assert.ok(!node.lines.some(({ msg }) => msg === AHEAD));
  });

  test('that reads as much without a walk gets nothing', async (t) => {
    const { node, directory } = await mounted(t);
    await readSome(directory);
    await sleep(500);
    assert.equal(await residentFiles(directory), 0);
    assert.ok(!node.lines.some(({ msg }) => msg === AHEAD));
  });
});
