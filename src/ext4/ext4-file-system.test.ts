/**
 * Goal: every kind of node, size and limit that an image may hold is read back as it was written, on a file system in
 * which e2fsck finds no errors; values that ext4 cannot hold are refused by code.
 * Method: one small file system a rule, on a device that makes discarded blocks unreadable.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { debugfs, e2fsckComplaints, NO_E2FSCK } from '../../test/support/e2fsck.js';
import { SparseDevice } from '../../test/support/sparse-device.js';
import { ErrorCodes } from '../errors.js';
import { type Attributes, Ext4FileSystem, type NodeSpec } from './ext4-file-system.js';
import { ROOT_INODE } from './superblock.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-ext4-'));
after(() => rmSync(directory, { recursive: true }));
const MIB = 1 << 20;
const UUID = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const TIME = { seconds: 1_700_000_000, nanoseconds: 123_456_789 };
const PLAIN: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: TIME, atime: TIME, ctime: TIME };
const UNSUPPORTED = { code: ErrorCodes.Unsupported };
let images = 0;

class Image {
  readonly device: SparseDevice;
  fs: Ext4FileSystem;

  constructor(sizeBytes = 256 * MIB) {
    this.device = new SparseDevice(join(directory, `${++images}`), sizeBytes);
    this.fs = Ext4FileSystem.format(this.device, { uuid: UUID });
  }

  create(name: string | Buffer, spec: NodeSpec, parent = ROOT_INODE, attributes = PLAIN): number {
    return this.fs.create(parent, Buffer.from(name), spec, attributes);
  }

  file(name: string, content: Uint8Array = Buffer.alloc(0), parent = ROOT_INODE): number {
    const inode = this.create(name, { kind: 'file' }, parent);
    const writer = this.fs.writer(inode);
    writer.write(content);
    writer.end();
    return inode;
  }

  directory(name: string, parent = ROOT_INODE): number {
    return this.create(name, { kind: 'directory' }, parent);
  }

  content(inode: number): Buffer {
    const bytes = Buffer.alloc(this.fs.stat(inode).sizeBytes, 1);
    this.fs.readFile(inode, bytes, 0);
    return bytes;
  }

  freeBlocks(): number {
    this.fs.flush();
    const superblock = Buffer.alloc(1024);
    this.device.read(superblock, 1024);
    return superblock.readUInt32LE(0xc);
  }

  /** Reopens it, as for the next layer. */
  reopen(): void {
    this.fs.flush();
    this.fs = Ext4FileSystem.open(this.device);
  }

  check(): void {
    this.fs.flush();
    if (NO_E2FSCK === false) assert.deepEqual(e2fsckComplaints(this.device.path), []);
    this.device.close();
  }
}

test('an empty 64 GiB file system writes less than 100 KiB', () => {
  const image = new Image(64 * 1024 * MIB);
  image.fs.flush();
  assert.ok(image.device.writtenBytes < 100_000, `${image.device.writtenBytes} bytes`);
  assert.deepEqual(
    [...image.fs.entries(ROOT_INODE)].map(({ name }) => Buffer.from(name).toString()),
    ['lost+found'],
  );
  image.check();
});

test('formats disks of any sufficient size, and refuses others', () => {
  for (const blocks of [256, 257, 2048, 32767, 32768, 32769, 32780, 65537, 5 * 32768 + 1]) {
    const image = new Image(blocks * 4096);
    image.file('f', Buffer.alloc(20_000, 1));
    image.reopen();
    image.check();
  }
  for (const sizeBytes of [0, 4096, 255 * 4096, 256 * 4096 + 512, 2 ** 32 * 4096]) {
    const device = { sizeBytes, read() {}, write() {}, discard() {} };
    const refused = { code: ErrorCodes.InvalidArgument };
    assert.throws(() => Ext4FileSystem.format(device, { uuid: UUID }), refused);
  }
});

test('the same calls give the same bytes', () => {
  const digests = [1, 2].map(() => {
    const image = new Image(8 * MIB);
    const d = image.directory('d');
    for (let i = 0; i < 300; i++) image.file(`file-${i}`, Buffer.alloc(i * 10, i), d);
    image.reopen();
    image.fs.remove(d, Buffer.from('file-7'));
    image.check();
    return createHash('sha256').update(readFileSync(image.device.path)).digest('hex');
  });
  assert.equal(digests[0], digests[1]);
});

test('writes content in pieces of any size, as one run on the disk', { skip: NO_E2FSCK }, () => {
  const image = new Image();
  const content = Buffer.from(Array.from({ length: 300_001 }, (_, i) => (i * 7) % 251));
  const inode = image.create('f', { kind: 'file' });
  const writer = image.fs.writer(inode);
  for (let at = 0, step = 1; at < content.length; at += step, step = (step * 3) % 9973) {
    writer.write(content.subarray(at, Math.min(at + step, content.length)));
  }
  writer.end();
  image.directory('between');
  const second = image.file('g', content);
  for (const number of [inode, second]) assert.ok(image.content(number).equals(content));
  image.check();
  const extents = debugfs(image.device.path, 'ex /f').trim().split('\n');
  assert.equal(extents.length, 2, extents.join('\n'));
});

test('files with holes, beyond 4 GiB, and in more pieces than an inode can say', () => {
  const image = new Image();
  const huge = image.create('huge', { kind: 'file' });
  const sparse = image.create('sparse', { kind: 'file' });
  let writer = image.fs.writer(huge);
  writer.write(Buffer.from('head'));
  writer.hole(2 ** 32 + 1000);
  writer.write(Buffer.from('middle'));
  writer.hole(2 ** 33);
  writer.end();
  writer = image.fs.writer(sparse);
  for (let i = 0; i < 1500; i++) {
    writer.write(Buffer.alloc(4096, i));
    writer.hole(8192);
  }
  writer.end();
  assert.equal(image.fs.stat(huge).sizeBytes, 2 ** 33 + 2 ** 32 + 1010);
  const seen = Buffer.alloc(14);
  image.fs.readFile(huge, seen, 2 ** 32 + 1000);
  assert.equal(seen.toString('latin1'), '\0\0\0\0middle\0\0\0\0');
  const content = image.content(sparse);
  for (let i = 0; i < 1500; i++) {
    assert.equal(content[i * 12288], i % 256);
    assert.equal(content[i * 12288 + 4096], 0);
  }
  const before = image.freeBlocks();
  image.fs.remove(ROOT_INODE, Buffer.from('sparse'));
  assert.equal(image.freeBlocks(), before + 1500 + 6);
  image.check();
});

test('a file of only a hole has no block, and new content replaces the old', () => {
  const image = new Image();
  const before = image.freeBlocks();
  const inode = image.create('f', { kind: 'file' });
  const writer = image.fs.writer(inode);
  writer.hole(10_000);
  writer.end();
  assert.equal(image.freeBlocks(), before);
  assert.ok(image.content(inode).equals(Buffer.alloc(10_000)));
  for (const length of [50_000, 3]) {
    const again = image.fs.writer(inode);
    again.write(Buffer.alloc(length, 5));
    again.end();
    assert.ok(image.content(inode).equals(Buffer.alloc(length, 5)));
  }
  assert.equal(image.freeBlocks(), before - 1);
  assert.throws(() => image.fs.writer(ROOT_INODE), { code: ErrorCodes.InvalidArgument });
  image.check();
});

test('a directory of thousands of names, long ones too, finds each of them', () => {
  const image = new Image();
  const short = image.directory('short');
  const long = image.directory('long');
  const longName = (i: number) => `${i}`.padEnd(255, '\xff');
  for (let i = 0; i < 8000; i++) image.create(`name ${i}`, { kind: 'fifo' }, short);
  // Some ten in a block: more blocks than one level of the index can list.
  for (let i = 0; i < 7000; i++) {
    image.fs.link(long, Buffer.from(longName(i), 'latin1'), 12 + 2 + (i % 100));
  }
  image.reopen();
  for (let i = 0; i < 7000; i++) {
    const found = image.fs.lookup(long, Buffer.from(longName(i), 'latin1'));
    assert.equal(found, 14 + (i % 100));
    if (i % 3 === 0) image.fs.remove(long, Buffer.from(longName(i), 'latin1'));
    if (i % 3 === 0) image.fs.remove(short, Buffer.from(`name ${i + 200}`));
  }
  assert.equal(image.fs.lookup(short, Buffer.from('name 8000')), undefined);
  for (let i = 0; i < 7000; i += 3) image.create(`again ${i}`, { kind: 'fifo' }, short);
  assert.equal([...image.fs.entries(short)].length, 8000);
  image.check();
  if (NO_E2FSCK === false) {
    assert.match(debugfs(image.device.path, 'htree_dump /long'), /Indirect levels: 1/);
  }
});

test('one name more in a large directory changes few blocks', () => {
  const image = new Image();
  const d = image.directory('d');
  for (let i = 0; i < 3000; i++) image.create(`a name like any other ${i}`, { kind: 'fifo' }, d);
  image.reopen();
  image.device.writtenBytes = 0;
  image.create('new', { kind: 'fifo' }, d);
  image.fs.flush();
  // Leaf, inode table, inode bitmap, descriptors, superblock.
  assert.ok(image.device.writtenBytes <= 5 * 4096, `${image.device.writtenBytes}`);
  image.check();
});

test('more subdirectories than links can be counted, and back', () => {
  const image = new Image(1100 * MIB);
  const d = image.directory('d');
  for (let i = 0; i < 65_010; i++) image.directory(`${i}`, d);
  assert.equal(image.fs.stat(d).links, 1);
  image.fs.flush();
  if (NO_E2FSCK === false) assert.deepEqual(e2fsckComplaints(image.device.path), []);
  for (let i = 0; i < 20; i++) image.fs.remove(d, Buffer.from(`${i}`));
  assert.equal(image.fs.stat(d).links, 64_992);
  image.check();
});

test('counts hard links up to the limit, and frees content with the last one', () => {
  const image = new Image();
  const inode = image.file('f', Buffer.alloc(9000));
  const d = image.directory('d');
  for (let i = 1; i < 65_000; i++) image.fs.link(d, Buffer.from(`${i}`), inode);
  assert.equal(image.fs.stat(inode).links, 65_000);
  assert.throws(() => image.fs.link(d, Buffer.from('more'), inode), UNSUPPORTED);
  assert.throws(() => image.fs.link(d, Buffer.from('d'), d), { code: ErrorCodes.InvalidArgument });
  const before = image.freeBlocks();
  image.fs.remove(ROOT_INODE, Buffer.from('f'));
  assert.equal(image.fs.stat(inode).links, 64_999);
  image.fs.remove(ROOT_INODE, Buffer.from('d'));
  assert.ok(image.freeBlocks() > before + 300);
  image.check();
});

test('symlinks of every length', () => {
  const image = new Image();
  for (const length of [1, 59, 60, 61, 4095]) {
    const target = Buffer.alloc(length, 'x');
    const inode = image.create(`l${length}`, { kind: 'symlink', target });
    assert.deepEqual(image.fs.readLink(inode), target);
    assert.equal(image.fs.stat(inode).sizeBytes, length);
  }
  for (const target of [Buffer.alloc(0), Buffer.alloc(4096, 'x'), Buffer.from('a\0b')]) {
    assert.throws(() => image.create('bad', { kind: 'symlink', target }), UNSUPPORTED);
  }
  image.reopen();
  assert.equal(image.fs.readLink(image.fs.lookup(ROOT_INODE, Buffer.from('l60')) ?? 0).length, 60);
});

test('extended attributes in the inode, in a block, and more than that', () => {
  const image = new Image();
  const inode = image.file('f', Buffer.alloc(5000));
  const acl = Buffer.from(
    '0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff',
    'hex',
  );
  const sets: Array<Record<string, Uint8Array>> = [
    { 'user.a': Buffer.from('1') },
    { 'security.capability': Buffer.alloc(20, 1), 'user.empty': Buffer.alloc(0) },
    { 'system.posix_acl_access': acl, 'trusted.overlay.opaque': Buffer.from('y') },
    { 'user.large': Buffer.alloc(4000, 2), 'user.small': Buffer.from('3') },
    {
      'user.a': Buffer.alloc(1000, 4),
      'user.b': Buffer.alloc(1001, 5),
      'user.c': Buffer.alloc(90, 6),
    },
    {},
  ];
  const before = image.freeBlocks();
  for (const set of sets) {
    const wanted = new Map(Object.entries(set));
    image.fs.setXattrs(inode, wanted);
    const found = [...image.fs.xattrs(inode)].map(([name, value]) => [
      name,
      Buffer.from(value).toString('hex'),
    ]);
    assert.deepEqual(
      found.sort(),
      [...wanted].map(([name, value]) => [name, Buffer.from(value).toString('hex')]).sort(),
    );
    image.fs.flush();
    if (NO_E2FSCK === false) assert.deepEqual(e2fsckComplaints(image.device.path), []);
  }
  assert.equal(image.freeBlocks(), before);
  const set = (name: string, value: Uint8Array) =>
    image.fs.setXattrs(inode, new Map([[name, value]]));
  assert.throws(() => set('user.x', Buffer.alloc(4096)), UNSUPPORTED);
  for (const name of ['system.nfs4_acl', 'user.', 'none', `user.${'x'.repeat(256)}`]) {
    assert.throws(() => set(name, Buffer.alloc(1)), UNSUPPORTED, name);
  }
  for (const bad of [Buffer.alloc(0), acl.subarray(0, 10), Buffer.alloc(12, 2)]) {
    assert.throws(() => set('system.posix_acl_access', bad), { code: ErrorCodes.InvalidArgument });
  }
  image.check();
});

test('removing a tree frees everything, at any depth', () => {
  const image = new Image();
  image.directory('early');
  const blocks = image.freeBlocks();
  let parent = image.directory('top');
  for (let depth = 0; depth < 3000; depth++) {
    image.file('f', Buffer.alloc(100), parent);
    parent = image.directory('d', parent);
  }
  image.fs.remove(ROOT_INODE, Buffer.from('top'));
  assert.equal(image.freeBlocks(), blocks);
  assert.equal(image.directory('next'), 13, 'the inodes are free again');
  image.check();
});

test('refuses invalid, existing and missing names', () => {
  const image = new Image();
  for (const name of ['', '.', '..', 'a/b', 'a\0', 'x'.repeat(256)]) {
    assert.throws(() => image.directory(name), { code: ErrorCodes.InvalidArgument }, name);
  }
  const inode = image.directory('d');
  assert.throws(() => image.file('d'), { code: ErrorCodes.AlreadyExists });
  assert.throws(() => image.fs.link(ROOT_INODE, Buffer.from('d'), inode), {
    code: ErrorCodes.AlreadyExists,
  });
  assert.throws(() => image.fs.remove(inode, Buffer.from('x')), { code: ErrorCodes.NotFound });
  image.check();
});

test('a full disk, and one without inodes, are NoSpace', () => {
  const image = new Image(4 * MIB);
  const noSpace = { code: ErrorCodes.NoSpace };
  assert.throws(() => image.file('f', Buffer.alloc(4 * MIB)), noSpace);
  const other = new Image(4 * MIB);
  assert.throws(() => {
    for (let i = 0; ; i++) other.create(`${i}`, { kind: 'fifo' });
  }, noSpace);
});

test('opens file systems of mke2fs without a journal, and refuses unsupported features', {
  skip: NO_E2FSCK,
}, () => {
  const mke2fs = (sizeBytes: number, ...options: string[]): SparseDevice => {
    const device = new SparseDevice(join(directory, `${++images}`), sizeBytes);
    const { status, stderr } = spawnSync(
      '/sbin/mke2fs',
      ['-q', '-t', 'ext4', ...options, device.path],
      { encoding: 'utf8' },
    );
    assert.equal(status, 0, stderr);
    return device;
  };
  const base = '^has_journal,^metadata_csum,^orphan_file';
  for (const options of [
    [`${base},sparse_super,flex_bg`, '-G', '1'],
    [`${base},sparse_super2,^uninit_bg,^resize_inode`],
    [`${base},^64bit,uninit_bg,sparse_super2`],
  ]) {
    const device = mke2fs(300 * MIB, '-b', '4096', '-O', ...options);
    const fs = Ext4FileSystem.open(device);
    const many = fs.create(ROOT_INODE, Buffer.from('many\xff'), { kind: 'directory' }, PLAIN);
    for (let i = 0; i < 1000; i++) {
      const inode = fs.create(many, Buffer.from(`${i}\xff`), { kind: 'file' }, PLAIN);
      const writer = fs.writer(inode);
      writer.write(Buffer.alloc(200_000, i));
      writer.end();
    }
    fs.remove(many, Buffer.from('7\xff'));
    fs.flush();
    assert.deepEqual(e2fsckComplaints(device.path), [], options.join(' '));
    device.close();
  }
  for (const options of [
    ['-O', 'has_journal'],
    ['-O', `${base},metadata_csum`],
    ['-b', '1024', '-O', base],
    ['-O', `${base},inline_data`],
  ]) {
    assert.throws(
      () => Ext4FileSystem.open(mke2fs(64 * MIB, ...options)),
      UNSUPPORTED,
      options.join(' '),
    );
  }
});
