/**
 * Goal: for any damage the result is a typed error or an answer; never a crash, a hang or an allocation by a damaged
 * field.
 * Method: a small file system with everything in it; bytes of its metadata are overwritten at random, then everything
 * is read, changed and removed. And single structures, damaged on purpose.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlockDevice } from '../io/block-device.js';
import { type Attributes, Ext4FileSystem } from './ext4-file-system.js';
import { ROOT_INODE } from './superblock.js';

const DISK_BYTES = 4 << 20;
const TIME = { seconds: 1, nanoseconds: 2 };
const PLAIN: Attributes = { mode: 0o755, uid: 1, gid: 2, mtime: TIME, atime: TIME, ctime: TIME };

class MemoryDevice implements BlockDevice {
  readonly bytes: Buffer;
  readonly sizeBytes: number;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.sizeBytes = bytes.length;
  }

  read(target: Uint8Array, offset: number): void {
    target.set(this.bytes.subarray(offset, offset + target.length));
  }

  write(source: Uint8Array, offset: number): void {
    this.bytes.set(source, offset);
  }

  discard(): void {}
}

/** Files with a tree of extents, an indexed directory, links, xattrs in a block. */
function sample(): Buffer {
  const device = new MemoryDevice(Buffer.alloc(DISK_BYTES));
  const fs = Ext4FileSystem.format(device, { uuid: Buffer.alloc(16, 1) });
  const file = fs.create(ROOT_INODE, Buffer.from('file'), { kind: 'file' }, PLAIN);
  const writer = fs.writer(file);
  for (let i = 0; i < 20; i++) {
    writer.write(Buffer.alloc(4096, i));
    writer.hole(4096);
  }
  writer.end();
  fs.setXattrs(
    file,
    new Map([
      ['user.a', Buffer.alloc(300, 1)],
      ['user.b', Buffer.from('b')],
    ]),
  );
  const target = Buffer.alloc(100, 'x');
  fs.create(ROOT_INODE, Buffer.from('link'), { kind: 'symlink', target }, PLAIN);
  const many = fs.create(ROOT_INODE, Buffer.from('many'), { kind: 'directory' }, PLAIN);
  for (let i = 0; i < 60; i++) fs.link(many, Buffer.from(`${i}`.padEnd(200)), file);
  let deep = many;
  for (let i = 0; i < 5; i++)
    deep = fs.create(deep, Buffer.from('d'), { kind: 'directory' }, PLAIN);
  fs.flush();
  return device.bytes;
}

/** All operations that convert performs on the layers below. */
function exercise(bytes: Buffer): void {
  const fs = Ext4FileSystem.open(new MemoryDevice(bytes));
  const pending = [ROOT_INODE];
  const seen = new Set<number>();
  for (let inode = pending.pop(); inode !== undefined; inode = pending.pop()) {
    if (seen.has(inode)) continue;
    seen.add(inode);
    const { kind, sizeBytes } = fs.stat(inode);
    fs.xattrs(inode);
    if (kind === 'directory') pending.push(...[...fs.entries(inode)].map((entry) => entry.inode));
    if (kind === 'symlink') fs.readLink(inode);
    if (kind === 'file') fs.readFile(inode, Buffer.alloc(Math.min(sizeBytes, 1 << 20)), 0);
  }
  const many = fs.lookup(ROOT_INODE, Buffer.from('many'));
  if (many !== undefined && fs.stat(many).kind === 'directory') {
    for (let i = 0; i < 40; i++) {
      const name = Buffer.from(`new ${i}`.padEnd(250));
      fs.create(many, name, { kind: 'directory' }, PLAIN);
    }
  }
  for (const { name } of [...fs.entries(ROOT_INODE)]) fs.remove(ROOT_INODE, name);
  fs.flush();
}

/** Runs it; passes only errors about damaged, unknown or exhausted file systems. */
function exerciseDamaged(bytes: Buffer): ObdError | undefined {
  const allowed: readonly string[] = [
    ErrorCodes.Corrupt,
    ErrorCodes.Unsupported,
    ErrorCodes.NoSpace,
  ];
  try {
    exercise(bytes);
    return undefined;
  } catch (error) {
    if (error instanceof ObdError && allowed.includes(error.code)) return error;
    throw error;
  }
}

test('random damage to any metadata is an answer or a typed error', () => {
  const whole = sample();
  assert.equal(exerciseDamaged(Buffer.from(whole)), undefined);
  const used: number[] = [];
  for (let at = 0; at < whole.length; at += 64) {
    if (whole.subarray(at, at + 64).some((byte) => byte !== 0)) used.push(at);
  }
  const damage = fc.tuple(fc.constantFrom(...used), fc.nat(63), fc.nat(255));
  fc.assert(
    fc.property(fc.array(damage, { minLength: 1, maxLength: 8 }), (damages) => {
      const bytes = Buffer.from(whole);
      for (const [chunk, at, value] of damages) bytes[chunk + at] = value;
      exerciseDamaged(bytes);
    }),
    { numRuns: 150 },
  );
});

test('refuses random bytes', () => {
  const noise = fc.uint8Array({ minLength: 4096, maxLength: 4096 });
  fc.assert(
    fc.property(noise, (block) => {
      const bytes = Buffer.alloc(DISK_BYTES);
      bytes.set(block);
      assert.ok(exerciseDamaged(bytes) instanceof ObdError);
    }),
    { numRuns: 50 },
  );
});

test('an error names the damaged inode, block or group', () => {
  const cases: Array<[what: string, expected: RegExp, damage: (bytes: Buffer) => void]> = [
    ['magic', /superblock: its magic/, (bytes) => bytes.fill(0, 1024 + 0x38, 1024 + 0x3a)],
    ['size', /superblock: .* do not fit/, (bytes) => bytes.writeUInt32LE(1 << 30, 1024 + 4)],
    ['descriptor', /group 0: the checksum/, (bytes) => bytes.writeUInt32LE(1, 4096)],
    [
      'extents of the root',
      /inode 2: .*extent tree/,
      (bytes) => bytes.fill(0, inodeAt(bytes, 2) + 0x28, inodeAt(bytes, 2) + 0x2c),
    ],
    [
      'mode of the root',
      /inode 2: it is named/,
      (bytes) => bytes.fill(0, inodeAt(bytes, 2), inodeAt(bytes, 2) + 2),
    ],
  ];
  for (const [what, expected, damage] of cases) {
    const bytes = sample();
    damage(bytes);
    const error = exerciseDamaged(bytes);
    assert.equal(error?.code, ErrorCodes.Corrupt, what);
    assert.match(error.message, expected);
  }
});

test('removing a directory below itself fails instead of looping', () => {
  const bytes = sample();
  const fs = Ext4FileSystem.open(new MemoryDevice(bytes));
  const many = fs.lookup(ROOT_INODE, Buffer.from('many')) as number;
  const child = fs.lookup(many, Buffer.from('d')) as number;
  // The name "d" now leads back to its parent.
  const entry = Buffer.from([child, 0, 0, 0, 0, 0, 1, 2, 'd'.charCodeAt(0)]);
  for (let at = 0; at + entry.length <= bytes.length; at += 4) {
    entry.writeUInt16LE(bytes.readUInt16LE(at + 4), 4);
    if (bytes.subarray(at, at + entry.length).equals(entry)) bytes.writeUInt32LE(many, at);
  }
  const again = Ext4FileSystem.open(new MemoryDevice(bytes));
  assert.throws(() => again.remove(ROOT_INODE, Buffer.from('many')), { code: ErrorCodes.Corrupt });
});

/** Where an inode of the first group is on the disk. */
function inodeAt(bytes: Buffer, number: number): number {
  return bytes.readUInt32LE(4096 + 8) * 4096 + (number - 1) * 256;
}
