/**
 * Goal: the kernel reads our file system as it reads one that it made by the same calls, and can continue writing to
 * it.
 * Method: one list of nodes, made by us on a loop device and by the kernel in a directory; the trees are compared in
 * everything an image can say. Needs root; mounts and loop devices go with each test.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { e2fsckComplaints } from '../../test/support/e2fsck.js';
import { SparseDevice } from '../../test/support/sparse-device.js';
import { compareTrees, countPaths } from '../../test/support/tree-compare.js';
import { type Attributes, Ext4FileSystem, type NodeSpec } from './ext4-file-system.js';
import { ROOT_INODE } from './superblock.js';

interface Member {
  readonly path: Buffer;
  readonly spec: NodeSpec;
  readonly attributes: Attributes;
  readonly content?: Buffer;
  readonly xattrs?: Readonly<Record<string, Buffer>>;
}

const UUID = Buffer.alloc(16, 0x5a);
const canMount = process.getuid?.() === 0 && spawnSync('mount', ['--version']).status === 0;
const hasSetfattr = spawnSync('setfattr', ['--version']).status === 0;
const skip = canMount && hasSetfattr ? false : 'needs root, mount and setfattr';

function attributes(mode: number, seconds: number, uid = 0, gid = 0): Attributes {
  const time = { seconds, nanoseconds: 500_000_000 };
  return { mode, uid, gid, mtime: time, atime: time, ctime: time };
}

const ACL = Buffer.from(
  '0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff',
  'hex',
);

function members(): Member[] {
  const list: Member[] = [];
  const add = (path: string, spec: NodeSpec, rest: Partial<Member> = {}) =>
    list.push({
      path: Buffer.from(path, 'latin1'),
      spec,
      attributes: attributes(0o644, 1e9),
      ...rest,
    });
  const file: NodeSpec = { kind: 'file' };
  add('d', { kind: 'directory' }, { attributes: attributes(0o1777, 5, 1000, 70_000) });
  add('d/setuid', file, {
    content: Buffer.alloc(123_456, 'x'),
    attributes: attributes(0o4755, 4102444800, 3_000_000),
  });
  add('d/early', file, { attributes: attributes(0o600, -1_000_000_000) });
  add('empty', file, {
    xattrs: {
      'user.a': Buffer.from('1'),
      'security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex'),
    },
  });
  add('acl', file, {
    attributes: attributes(0o664, 7),
    xattrs: { 'system.posix_acl_access': ACL },
  });
  add('large-xattrs', file, {
    xattrs: { 'user.l': Buffer.alloc(3000, 'v'), 'trusted.t': Buffer.from('t') },
  });
  add(
    'short-link',
    { kind: 'symlink', target: Buffer.from('d/setuid') },
    { attributes: attributes(0o777, 9) },
  );
  add(
    'long-link',
    { kind: 'symlink', target: Buffer.alloc(4000, 'l') },
    { attributes: attributes(0o777, 9) },
  );
  add('null', { kind: 'character', major: 1, minor: 3 });
  add('big-minor', { kind: 'block', major: 4095, minor: 0xfffff });
  add('fifo', { kind: 'fifo' });
  add('\xff\xe9 \n', file, { content: Buffer.from('bytes') });
  add('x'.repeat(255), file);
  add('many', { kind: 'directory' }, { attributes: attributes(0o755, 3) });
  for (let i = 0; i < 3000; i++) add(`many/${i} \xe9 a name of some length`, file);
  return list;
}

function buildOurs(device: SparseDevice): Ext4FileSystem {
  const fs = Ext4FileSystem.format(device, { uuid: UUID });
  const inodes = new Map([['', ROOT_INODE]]);
  for (const { path, spec, attributes, content, xattrs } of members()) {
    const { parent, name } = split(path);
    const inode = fs.create(inodes.get(parent) as number, name, spec, attributes);
    inodes.set(path.toString('latin1'), inode);
    if (content !== undefined) {
      const writer = fs.writer(inode);
      writer.write(content);
      writer.end();
    }
    if (xattrs !== undefined) fs.setXattrs(inode, new Map(Object.entries(xattrs)));
  }
  fs.link(inodes.get('d') as number, Buffer.from('linked'), inodes.get('empty') as number);
  fs.setAttributes(ROOT_INODE, attributes(0o750, 11));
  fs.flush();
  return fs;
}

function buildReference(root: string): void {
  mkdirSync(root);
  const list = members();
  const full = (path: Buffer) => Buffer.concat([Buffer.from(`${root}/`), path]);
  for (const { path, spec, content, xattrs } of list) {
    if (spec.kind === 'directory') mkdirSync(full(path));
    else if (spec.kind === 'file') writeFileSync(full(path), content ?? '');
    else if (spec.kind === 'symlink') symlinkSync(Buffer.from(spec.target), full(path));
    else if (spec.kind === 'fifo') execFileSync('mknod', [full(path).toString(), 'p']);
    else if (spec.kind === 'character' || spec.kind === 'block') {
      const letter = spec.kind === 'character' ? 'c' : 'b';
      execFileSync('mknod', [full(path).toString(), letter, `${spec.major}`, `${spec.minor}`]);
    }
    for (const [name, value] of Object.entries(xattrs ?? {})) {
      execFileSync('setfattr', [
        '-n',
        name,
        '-v',
        `0x${value.toString('hex')}`,
        full(path).toString(),
      ]);
    }
  }
  linkSync(join(root, 'empty'), join(root, 'd/linked'));
  for (const { path, spec, attributes } of [...list].reverse()) set(full(path), spec, attributes);
  set(Buffer.from(root), { kind: 'directory' }, attributes(0o750, 11));
}

function set(path: Buffer, spec: NodeSpec, { mode, uid, gid, mtime }: Attributes): void {
  // chown(2) takes capabilities away, and these have root's owner already.
  if (uid !== 0 || gid !== 0) lchownSync(path, uid, gid);
  if (spec.kind !== 'symlink') chmodSync(path, mode);
  // As dates: Node takes a negative number for "now".
  const date = new Date(mtime.seconds * 1000 + mtime.nanoseconds / 1e6);
  lutimesSync(path, date, date);
}

function split(path: Buffer): { parent: string; name: Buffer } {
  const slash = path.lastIndexOf('/');
  return {
    parent: path.subarray(0, Math.max(slash, 0)).toString('latin1'),
    name: path.subarray(slash + 1),
  };
}

/** Runs `use` with a new image's path and an empty directory to mount it on. */
function withImage(use: (device: SparseDevice, mount: string, work: string) => void): void {
  const work = mkdtempSync('/var/tmp/obd-ext4-mount-');
  const mount = join(work, 'mount');
  mkdirSync(mount);
  const device = new SparseDevice(join(work, 'image'), 2 ** 36);
  try {
    use(device, mount, work);
  } finally {
    spawnSync('umount', [mount]);
    device.close();
    rmSync(work, { recursive: true });
  }
}

test('the kernel reads the same tree that it would have made', { skip }, () => {
  withImage((device, mount, work) => {
    buildOurs(device);
    buildReference(join(work, 'reference'));
    execFileSync('mount', ['-o', 'loop,ro', device.path, mount]);
    assert.ok(countPaths(mount) > members().length);
    assert.deepEqual(compareTrees(mount, join(work, 'reference'), { ignore: ['lost+found'] }), []);
  });
});

test("the kernel continues our file system, and we continue the kernel's", { skip }, () => {
  withImage((device, mount) => {
    buildOurs(device);
    execFileSync('mount', ['-o', 'loop', device.path, mount]);
    for (let i = 0; i < 500; i++) writeFileSync(join(mount, 'many', `kernel ${i}`), `${i}`);
    writeFileSync(join(mount, 'large'), Buffer.alloc(20 << 20, 'k'));
    rmSync(join(mount, 'd'), { recursive: true });
    execFileSync('umount', [mount]);
    assert.deepEqual(e2fsckComplaints(device.path), []);
    const fs = Ext4FileSystem.open(device);
    const many = fs.lookup(ROOT_INODE, Buffer.from('many')) as number;
    assert.equal([...fs.entries(many)].length, 3500);
    for (let i = 0; i < 500; i++) {
      fs.create(many, Buffer.from(`ours ${i}`), { kind: 'file' }, attributes(0o644, 1));
    }
    fs.remove(ROOT_INODE, Buffer.from('large'));
    fs.flush();
    assert.deepEqual(e2fsckComplaints(device.path), []);
  });
});
