/**
 * Goal: once a start shows that it reads what is known of it, the rest of that is in the kernel's cache before the start asks for
 * it, and nothing else is. A start that reads other pages, or of which only a guess is known, gets nothing.
 * The program that the daemon has for it believes nothing of the disk.
 * Method: an ext4 of ours on a device of the fuse transport, mounted; the test reads a few files of it, and fincore(1) says how much
 * of the others the kernel has. Needs root.
 */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Ext4FileSystem } from '../../src/ext4/ext4-file-system.js';
import type { Extent } from '../../src/ext4/extent-tree.js';
import { ROOT_INODE } from '../../src/ext4/superblock.js';
import { Volume } from '../../src/ext4/volume.js';
import { writeHotBlob } from '../../src/hot-blob/hot-blob-writer.js';
import type { BlockDevice } from '../../src/io/block-device.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { randomOf } from '../support/changed-blobs.js';
import { joined } from '../support/hot-source.js';
import { PAGE_BYTES } from '../support/proved-layer.js';
import { ReferrerRegistry } from '../support/referrer-registry.js';
import { addAdvice, hotSourcesOf, placeImage, startLayer } from '../support/start-image.js';
import { StartNode } from '../support/start-node.js';

/** The daemon is in this process: it answers what the programs read. */
const run = promisify(execFile);
const SEED = Number(process.env['OBD_READ_AHEAD_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** The next free one may become a daemon's at the same moment, which then cannot let it go. */
const LOOP = `/dev/loop${200 + (process.pid % 100)}`;
const DISK_BYTES = 16 << 20;
const FILE_BYTES = 200 << 10;
const FILES = 50;
/** As many known ones as a start has to read before it is trusted, and some more. */
const TRUSTED_FILES = 20;
/** What a start reads of each file: first page, and how many. */
const READ = [
  [0, 4],
  [20, 8],
] as const;
/** The kernel reads so many further pages with each of them, so they are known too. */
const FURTHER = 4;
const PAGES_KNOWN = 20;
const TIME = { seconds: 1_700_000_000, nanoseconds: 0 };
const AHEAD = 'known pages read ahead';
const EXACT = { 'dev.obd-ts.load-order.read-ahead': '16384' };
const unfit =
  blockdUnfit || (spawnSync('fincore', ['--version']).status === 0 ? undefined : 'needs fincore');

const disk = Buffer.alloc(DISK_BYTES);
const files = new Map<string, Buffer>();
/** The pages of the disk that are known of each file, in order. */
const known = new Map<string, number[]>();
const outside: number[] = [];

/** Splits files into more extents than an inode has room for. */
function split(device: BlockDevice, inodes: readonly number[]): void {
  const volume = Volume.open(device);
  for (const number of inodes) {
    const inode = volume.inodes.get(number);
    const [{ physical }] = volume.trees.read(inode).extents as [Extent];
    const extents = Array.from({ length: FILE_BYTES / PAGE_BYTES / 5 }, (_, i) => {
      return { logical: 5 * i, physical: physical + 5 * i, count: 5, unwritten: false };
    });
    volume.trees.write(inode, extents, []);
  }
  volume.flush();
}

function deviceOf(bytes: Buffer): BlockDevice {
  return {
    sizeBytes: DISK_BYTES,
    read: (target: Uint8Array, offset: number) => {
      target.set(bytes.subarray(offset, offset + target.length));
    },
    write: (source: Uint8Array, offset: number) => bytes.set(source, offset),
    discard: () => {},
  };
}

function makeDisk(): void {
  const device = deviceOf(disk);
  const fs = Ext4FileSystem.format(device, { uuid: Buffer.alloc(16, 7) });
  const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: TIME, atime: TIME, ctime: TIME };
  const inodes: number[] = [];
  let [begin, end] = [Number.POSITIVE_INFINITY, 0];
  for (let i = 0; i < FILES; i++) {
    const name = `file-${i}`;
    const content = randomBytes(FILE_BYTES);
    const inode = fs.create(ROOT_INODE, Buffer.from(name), { kind: 'file' }, attributes);
    const writer = fs.writer(inode);
    writer.write(content);
    writer.end();
    files.set(name, content);
    const [range] = fs.deviceRanges(inode, 0, FILE_BYTES);
    const first = range!.offset / PAGE_BYTES;
    const pages = READ.flatMap(([page, count]) =>
      Array.from({ length: count + FURTHER }, (_, each) => first + page + each),
    );
    known.set(name, pages);
    begin = Math.min(begin, first);
    end = Math.max(end, first + FILE_BYTES / PAGE_BYTES);
    inodes.push(inode);
  }
  fs.flush();
  split(
    device,
    inodes.filter((_, i) => i % 4 === 0),
  );
  const isOutside = (page: number) => page < begin || page >= end;
  outside.push(...Array.from({ length: DISK_BYTES / PAGE_BYTES }, (_, i) => i).filter(isOutside));
}

makeDisk();
const image = { disk, layers: [startLayer(DISK_BYTES, pageOf)] };

function pageOf(page: number): Buffer {
  return disk.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
}

/** What starts read of every other file, and all that is of no file: mount(8) looks at both ends of a disk. */
const hotPages = [
  ...outside,
  ...[...known].filter((_, i) => i % 2 === 0).flatMap(([, pages]) => pages),
];
// The header of the layer is its first page.
const runs = Uint32Array.from(hotPages.flatMap((page) => [0, page + 1, 1]));
const hot = await joined(writeHotBlob(await hotSourcesOf(image), runs));

/** A node that serves the image, mounted. */
async function mounted(t: TestContext, annotations: Readonly<Record<string, string>>) {
  const registry = await ReferrerRegistry.start();
  const node = await StartNode.start();
  const directory = join(node.directory, 'mnt');
  mkdirSync(directory);
  t.after(async () => {
    await run('umount', [directory]).catch(() => {});
    await node.stop();
    await registry.stop();
  });
  const placed = placeImage(registry, image);
  addAdvice(registry, placed, { hot, annotations });
  const started = await node.begin(placed);
  await node.logged('hot pages fetched');
  await run('mount', ['-t', 'ext4', '-o', 'ro', started.path, directory]);
  return { node, directory };
}

/** Reads pages READ of files, by dd. */
async function read(directory: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const content = files.get(name)!;
    for (const [page, count] of READ) {
      const args = [`if=${join(directory, name)}`, `bs=${PAGE_BYTES}`, `skip=${page}`];
      const options = { encoding: 'buffer' } as const;
      const { stdout } = await run('dd', [...args, `count=${count}`, 'status=none'], options);
      const right = content.subarray(page * PAGE_BYTES, (page + count) * PAGE_BYTES);
      assert.ok(stdout.equals(right), `page ${page} of ${name}`);
    }
  }
}

/** How many pages of a file the kernel has. */
async function residentPages(path: string): Promise<number> {
  const { stdout } = await run('fincore', ['--noheadings', '-o', 'PAGES', path]);
  return Number(stdout.trim());
}

const names = [...files.keys()];
const [knownNames, otherNames] = [0, 1].map((half) => names.filter((_, i) => i % 2 === half));

describe('the known pages of a start', { skip: unfit, concurrency: true }, () => {
  test('are in the kernel cache once it has read some, and no others are', async (t) => {
    const { node, directory } = await mounted(t, EXACT);
    const [first, rest] = [knownNames!.slice(0, TRUSTED_FILES), knownNames!.slice(TRUSTED_FILES)];
    await read(directory, first);
    const { pages } = await node.logged(AHEAD);
    assert.ok(Number(pages) >= knownNames!.length * PAGES_KNOWN, `${pages} pages`);
    for (const name of rest)
      assert.equal(await residentPages(join(directory, name)), PAGES_KNOWN, name);
    for (const name of otherNames!)
      assert.equal(await residentPages(join(directory, name)), 0, name);
    for (const name of names) {
      assert.ok((await readFile(join(directory, name))).equals(files.get(name)!), name);
    }
    assert.deepEqual(node.warnings(), []);
  });

  test('stay where they are while it reads others', async (t) => {
    const { node, directory } = await mounted(t, EXACT);
    await read(directory, otherNames!);
    await sleep(500);
    for (const name of knownNames!)
      assert.equal(await residentPages(join(directory, name)), 0, name);
    assert.ok(!node.lines.some(({ msg }) => msg === AHEAD));
  });

  for (const [what, annotations] of Object.entries({
    'with what the kernel read beyond them': { 'dev.obd-ts.load-order.read-ahead': '262144' },
    'by nobody knows what read-ahead': {},
    'with a read-ahead that is no number': { 'dev.obd-ts.load-order.read-ahead': '1e2' },
  })) {
    test(`stay where they are if they were recorded ${what}`, async (t) => {
      const { node, directory } = await mounted(t, annotations as Readonly<Record<string, string>>);
      await read(directory, knownNames!.slice(0, TRUSTED_FILES));
      await sleep(500);
      for (const name of knownNames!.slice(TRUSTED_FILES)) {
        assert.equal(await residentPages(join(directory, name)), 0, name);
      }
      assert.ok(!node.lines.some(({ msg }) => msg === AHEAD));
    });
  }
});

describe('native/read-pages', { skip: unfit }, () => {
  const program = join(import.meta.dirname, '../../../native/read-pages/build/Release/read-pages');
  const everyBlock = Uint32Array.from({ length: DISK_BYTES / PAGE_BYTES }, (_, block) => block);

  /** Mounts a disk, and has the program read blocks of it. */
  async function withDisk(
    bytes: Buffer,
    use: (device: string, directory: string) => Promise<void>,
  ) {
    const folder = await mkdtemp('/var/tmp/obdp.');
    const [path, directory] = [join(folder, 'disk'), join(folder, 'mnt')];
    await writeFile(path, bytes);
    mkdirSync(directory);
    try {
      await run('losetup', [LOOP, path]);
      await run('mount', ['-t', 'ext4', '-o', 'ro', LOOP, directory]);
      await use(LOOP, directory);
    } finally {
      await run('umount', [directory]).catch(() => {});
      await run('losetup', ['--detach', LOOP]).catch(() => {});
      await rm(folder, { recursive: true });
    }
  }

  function ran(device: string, directory: string, input: Uint8Array) {
    return spawnSync(program, [device, directory], { input, encoding: 'utf8', timeout: 20_000 });
  }

  const frame = (blocks: Uint32Array) =>
    new Uint8Array(Uint32Array.of(blocks.length, ...blocks).buffer);

  test('reads all of each file, and refuses what is no mount of the device', async () => {
    await withDisk(disk, async (device, directory) => {
      const { status, stderr } = ran(device, directory, frame(everyBlock));
      assert.equal(status, 0, stderr);
      for (const name of names) {
        assert.equal(await residentPages(join(directory, name)), FILE_BYTES / PAGE_BYTES, name);
      }
      const refused = ran(device, '/', frame(everyBlock));
      assert.equal(refused.status, 1);
      assert.match(refused.stderr, /^Cannot read ahead in \/: it is not a mount of the device\n$/);
    });
  });

  test('ends well with blocks outside the disk, and refuses input that is cut or too long', async () => {
    await withDisk(disk, async (device, directory) => {
      const outsideDisk = frame(Uint32Array.of(0xffff_ffff, 0x8000_0000, DISK_BYTES));
      const inputs = [outsideDisk, outsideDisk.subarray(0, 6), frame(new Uint32Array(40_000))];
      const ends = inputs.map((input) => ran(device, directory, input).status);
      assert.deepEqual(ends, [0, 1, 1]);
    });
  });

  test('ends well with damaged inodes', async (t) => {
    const volume = Volume.open(deviceOf(disk));
    const table = volume.groups.inodeTable(0) * PAGE_BYTES;
    const bytes = (FILES + 2) * 256;
    const random = randomOf(SEED);
    t.diagnostic(`OBD_READ_AHEAD_SEED=${SEED}`);
    for (let round = 0; round < 8; round++) {
      const damaged = Buffer.from(disk);
      // Inodes up to 11 are those that the mount needs.
      for (let i = 0; i < 400; i++) {
        const at = table + 11 * 256 + random(bytes);
        damaged[at] = random(256);
      }
      await withDisk(damaged, async (device, directory) => {
        const { status, signal, stderr } = ran(device, directory, frame(everyBlock));
        assert.deepEqual([status, signal], [0, null], stderr);
      });
    }
  });
});
