/**
 * Goal: every rule of the table in docs/convert.md, on a real ext4 file system that e2fsck finds clean afterwards; a
 * layer that tries to leave the root, or contradicts itself, is refused.
 * Method: layers of test/support/tar-builder.ts, applied and read back through the file system.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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

const directory = mkdtempSync(join(tmpdir(), 'obd-apply-'));
after(() => rmSync(directory, { recursive: true }));
const DISK_BYTES = 32 << 20;
const CORRUPT = { code: ErrorCodes.Corrupt };
const UNSUPPORTED = { code: ErrorCodes.Unsupported };
const dir = (name: string): TarMember => ({ name, type: '5', mode: 0o755 });
const file = (name: string, content = name): TarMember => ({ name, content });
const symlink = (name: string, linkName: string): TarMember => ({ name, type: '2', linkName });
const hardlink = (name: string, linkName: string): TarMember => ({ name, type: '1', linkName });

let images = 0;

/** One image being built; every test ends with check(). */
class Image {
  readonly #device = new ChangeSet(join(directory, `${++images}`), DISK_BYTES, undefined);
  readonly fs = Ext4FileSystem.format(this.#device, { uuid: Buffer.alloc(16, 7) });
  readonly warnings: string[] = [];

  async apply(...members: readonly TarMember[]): Promise<void> {
    await this.applyTar(tarOf(members));
  }

  async applyTar(tar: Uint8Array): Promise<void> {
    async function* source(): AsyncGenerator<Uint8Array> {
      yield tar;
    }
    const warn = (message: string) => this.warnings.push(message);
    await applyLayer(this.fs, new TarReader(source(), 'test'), { label: 'layer', warn });
  }

  /** All paths but lost+found: directories end in "/", links in "-> target", files in "= content". */
  tree(): string[] {
    const lines: string[] = [];
    const visit = (inode: number, path: string) => {
      for (const entry of this.fs.entries(inode)) {
        const name = `${path}${Buffer.from(entry.name).toString('latin1')}`;
        const { kind } = this.fs.stat(entry.inode);
        if (name === 'lost+found') continue;
        if (kind === 'directory') {
          lines.push(`${name}/`);
          visit(entry.inode, `${name}/`);
        } else if (kind === 'symlink') {
          lines.push(`${name} -> ${Buffer.from(this.fs.readLink(entry.inode)).toString('latin1')}`);
        } else if (kind === 'file') {
          lines.push(`${name} = ${this.content(name)}`);
        } else {
          lines.push(`${name} (${kind})`);
        }
      }
    };
    visit(ROOT_INODE, '');
    return lines.sort();
  }

  inode(path: string): number {
    let inode: number | undefined = ROOT_INODE;
    for (const name of path.split('/').filter((part) => part !== '')) {
      inode = this.fs.lookup(inode, Buffer.from(name, 'latin1'));
      assert.ok(inode !== undefined, `${path} is not there`);
    }
    return inode;
  }

  stat(path: string) {
    return this.fs.stat(this.inode(path));
  }

  content(path: string): string {
    const inode = this.inode(path);
    const bytes = Buffer.alloc(this.fs.stat(inode).sizeBytes);
    this.fs.readFile(inode, bytes, 0);
    return bytes.toString('latin1');
  }

  xattrs(path: string): Record<string, string> {
    const entries = [...this.fs.xattrs(this.inode(path))];
    return Object.fromEntries(
      entries.map(([name, value]) => [name, Buffer.from(value).toString('latin1')]),
    );
  }

  /** e2fsck finds no errors to repair. */
  check(): void {
    this.fs.flush();
    const bytes = Buffer.alloc(DISK_BYTES);
    this.#device.read(bytes, 0);
    const path = join(directory, 'image');
    writeFileSync(path, bytes);
    const { status, stdout } = spawnSync('/sbin/e2fsck', ['-fn', path], { encoding: 'utf8' });
    assert.equal(status, 0, stdout);
    this.#device.close();
  }
}

test('makes every kind of node with all its attributes', async () => {
  const image = new Image();
  await image.apply(
    { name: './', type: '5', mode: 0o711, uid: 3, gid: 4, mtime: 1000 },
    { name: 'd', type: '5', mode: 0o1777, xattrs: { 'user.d': 'x' } },
    {
      name: 'd/f',
      content: 'x'.repeat(5000),
      mode: 0o104755,
      uid: 3_000_000,
      gid: 70_000,
      pax: [['mtime', '4102444800.5']],
      xattrs: { 'security.capability': Buffer.from('01000002', 'hex'), 'user.empty': '' },
    },
    { name: 'c', type: '3', major: 5, minor: 0xfffff },
    { name: 'b', type: '4', major: 4095, minor: 1 },
    { name: 'p', type: '6' },
    { name: 's', type: '2', linkName: './a/../f1', mode: 0o600 },
    { name: 'l', type: '2', linkName: 'x'.repeat(3000) },
    { name: Buffer.from([0xff, 0xe9]), content: 'bytes' },
    hardlink('h', 'd/f'),
  );
  assert.deepEqual(
    image.tree().map((line) => line.slice(0, 20)),
    [
      'b (block)',
      'c (character)',
      'd/',
      'd/f = xxxxxxxxxxxxxx',
      'h = xxxxxxxxxxxxxxxx',
      'l -> xxxxxxxxxxxxxxx',
      'p (fifo)',
      's -> ./a/../f1',
      '\xff\xe9 = bytes',
    ],
  );
  const root = image.stat('');
  assert.deepEqual([root.mode, root.uid, root.gid, root.mtime.seconds], [0o711, 3, 4, 1000]);
  const f = image.stat('d/f');
  assert.deepEqual([f.mode, f.uid, f.gid, f.links], [0o4755, 3_000_000, 70_000, 2]);
  assert.deepEqual({ ...f.mtime }, { seconds: 4102444800, nanoseconds: 500_000_000 });
  assert.deepEqual({ ...f.atime }, { ...f.mtime });
  assert.deepEqual(image.xattrs('d/f'), {
    'security.capability': '\x01\x00\x00\x02',
    'user.empty': '',
  });
  assert.deepEqual(image.xattrs('d'), { 'user.d': 'x' });
  assert.equal(image.stat('d').mode, 0o1777);
  assert.deepEqual([image.stat('c').major, image.stat('c').minor], [5, 0xfffff]);
  assert.deepEqual([image.stat('b').major, image.stat('b').minor], [4095, 1]);
  assert.equal(image.stat('s').mode, 0o777);
  assert.deepEqual(image.warnings, []);
  image.check();
});

test('sparse files keep their holes', async () => {
  const image = new Image();
  const pax: Array<[string, string]> = [
    ['GNU.sparse.name', 'sparse'],
    ['GNU.sparse.size', String(2 ** 33)],
    ['GNU.sparse.map', `0,4,${2 ** 32 + 5},6`],
  ];
  await image.apply({ name: 'x', content: 'headmiddle', pax });
  assert.equal(image.stat('sparse').sizeBytes, 2 ** 33);
  const seen = Buffer.alloc(12);
  image.fs.readFile(image.inode('sparse'), seen, 2 ** 32 + 2);
  assert.equal(seen.toString('latin1'), '\0\0\0middle\0\0\0');
  image.check();
});

test('a whiteout removes any entry of lower layers and spares its own layer', async () => {
  const image = new Image();
  await image.apply(
    file('gone'),
    symlink('link', 'gone'),
    dir('tree'),
    dir('tree/deep'),
    file('tree/deep/f'),
    dir('kept'),
    file('kept/old'),
    dir('late'),
    file('late/old'),
    file('lower'),
    hardlink('other', 'lower'),
  );
  await image.apply(
    file('.wh.gone', ''),
    file('.wh.link', ''),
    file('.wh.tree', ''),
    file('.wh.nothing', ''),
    file('none/.wh.nothing', ''),
    file('lower/.wh.x', ''),
    // Before and after the members that this layer unpacks under the same name.
    file('.wh.kept', ''),
    file('kept/new'),
    file('late/new'),
    file('.wh.late', ''),
    file('.wh.other', ''),
  );
  assert.deepEqual(image.tree(), [
    'kept/',
    'kept/new = kept/new',
    'late/',
    'late/new = late/new',
    'lower = lower',
  ]);
  assert.equal(image.stat('lower').links, 1);
  image.check();
});

test('an opaque directory shows its own layer only, for any position of the marker', async () => {
  const image = new Image();
  const lower = [dir('d'), file('d/old'), dir('d/sub'), file('d/sub/old'), dir('d/gone')];
  await image.apply(...lower, file('d/gone/x'), file('old'));
  await image.apply(
    { ...dir('d'), mode: 0o700 },
    file('d/new'),
    file('d/sub/new'),
    file('d/.wh..wh..opq', ''),
    file('d/later'),
  );
  assert.deepEqual(image.tree(), [
    'd/',
    'd/later = d/later',
    'd/new = d/new',
    'd/sub/',
    'd/sub/new = d/sub/new',
    'old = old',
  ]);
  assert.equal(image.stat('d').mode, 0o700);
  await image.apply(file('only'), file('.wh..wh..opq', ''));
  assert.deepEqual(image.tree(), ['only = only']);
  image.check();
});

test('impossible names of whiteouts are refused, and those of aufs ignored', async () => {
  for (const name of ['.wh.', '.wh..', '.wh...', 'd/.wh...']) {
    const image = new Image();
    await image.apply(dir('d'));
    await assert.rejects(image.apply(file(name, '')), CORRUPT, name);
  }
  const image = new Image();
  await image.apply(file('.wh..wh.plnk', ''), file('.wh..wh.aufs', ''), file('f'));
  assert.deepEqual(image.tree(), ['f = f']);
  image.check();
});

test('a member replaces one of another type, and other links of it keep the old content', async () => {
  const image = new Image();
  await image.apply(
    file('f2d'),
    dir('d2f'),
    file('d2f/x'),
    symlink('s2d', 'd2f'),
    dir('d2s'),
    file('f'),
    hardlink('g', 'f'),
    { name: 'p2f', type: '6' },
  );
  await image.apply(
    dir('f2d'),
    file('f2d/in'),
    file('d2f'),
    dir('s2d'),
    file('s2d/in'),
    symlink('d2s', 'f'),
    file('f', 'new'),
    file('p2f'),
  );
  assert.deepEqual(image.tree(), [
    'd2f = d2f',
    'd2s -> f',
    'f = new',
    'f2d/',
    'f2d/in = f2d/in',
    'g = f',
    'p2f = p2f',
    's2d/',
    's2d/in = s2d/in',
  ]);
  assert.deepEqual([image.stat('f').links, image.stat('g').links], [1, 1]);
  image.check();
});

test('a directory over a directory keeps its children and takes the new attributes', async () => {
  const image = new Image();
  await image.apply({ ...dir('d'), xattrs: { 'user.old': '1' }, mtime: 5 }, file('d/f'));
  await image.apply({ ...dir('d/'), mode: 0o700, uid: 9, xattrs: { 'user.new': '2' }, mtime: 6 });
  assert.deepEqual(image.tree(), ['d/', 'd/f = d/f']);
  const { mode, uid, mtime } = image.stat('d');
  assert.deepEqual([mode, uid, mtime.seconds], [0o700, 9, 6]);
  assert.deepEqual(image.xattrs('d'), { 'user.new': '2' });
  image.check();
});

test("making and removing children leaves a directory's times alone", async () => {
  const image = new Image();
  await image.apply({ ...dir('d'), mtime: 77 }, { ...file('d/a'), mtime: 99 });
  await image.apply({ ...file('d/b'), mtime: 100 }, file('d/.wh.a', ''));
  assert.deepEqual({ ...image.stat('d').mtime }, { seconds: 77, nanoseconds: 0 });
  image.check();
});

test('hard links before their target, through each other, and across layers', async () => {
  const image = new Image();
  await image.apply(
    hardlink('a/early', 'b/later'),
    hardlink('a/chain', 'a/early'),
    file('b/target'),
    hardlink('b/later', 'b/target'),
  );
  assert.equal(image.stat('b/target').links, 4);
  await image.apply(hardlink('across', 'b/target'), hardlink('b/target', 'across'));
  assert.equal(image.stat('across').links, 5);
  // The target is there below, and this layer replaces it afterwards: the link is to the new one.
  await image.apply(hardlink('moved', 'b/target'), file('b/target', 'new'));
  assert.deepEqual([image.content('moved'), image.content('across')], ['new', 'b/target']);
  assert.equal(image.inode('moved'), image.inode('b/target'));
  // A later member of the link's own name wins over a link that still waits.
  await image.apply(hardlink('mine', 'soon'), file('mine', 'own'), file('soon'));
  assert.equal(image.content('mine'), 'own');
  // A whiteout takes the target's name, not the link.
  await image.apply(hardlink('rescued', 'soon'), file('.wh.soon', ''));
  assert.equal(image.content('rescued'), 'soon');
  image.check();
});

test('impossible hard links are refused', async () => {
  for (const members of [
    [hardlink('l', 'never')],
    [hardlink('l', 'l')],
    [hardlink('x', 'y'), hardlink('y', 'x')],
    [dir('d'), hardlink('l', 'd')],
    [hardlink('l', '')],
    [hardlink('l', '../f'), file('f')],
  ]) {
    await assert.rejects(new Image().apply(...members), CORRUPT, JSON.stringify(members));
  }
});

test('no name leads outside the root', async () => {
  for (const name of ['../x', 'a/../../x', '..', '/..', './../x', 'a/b/../../../x']) {
    await assert.rejects(new Image().apply(file(name)), CORRUPT, name);
  }
  await assert.rejects(new Image().apply(file('')), CORRUPT);
  await assert.rejects(new Image().apply(symlink('/', 'x')), CORRUPT);
  const image = new Image();
  await image.apply(file('/absolute'), file('//a/./b//../c'), dir('/'));
  assert.deepEqual(image.tree(), ['a/', 'a/c = //a/./b//../c', 'absolute = /absolute']);
  image.check();
});

test('symlinks among the parents are followed inside the root', async () => {
  const image = new Image();
  await image.apply(
    dir('usr'),
    dir('usr/lib'),
    symlink('lib', 'usr/lib'),
    symlink('up', '../../../../usr'),
    symlink('abs', '/usr/lib/'),
    symlink('usr/back', '../lib'),
    symlink('dangling', '/run/new'),
  );
  await image.apply(
    file('lib/1'),
    file('up/2'),
    file('abs/3'),
    file('usr/back/4'),
    file('dangling/5'),
    hardlink('hard', 'abs/3'),
    file('lib/.wh.4', ''),
    file('up/lib/.wh.1', ''),
  );
  assert.deepEqual(
    image.tree().filter((line) => line.includes('=')),
    [
      'hard = abs/3',
      'run/new/5 = dangling/5',
      'usr/2 = up/2',
      'usr/lib/1 = lib/1',
      'usr/lib/3 = abs/3',
      'usr/lib/4 = usr/back/4',
    ],
  );
  // A member of the link's own name replaces the link, it does not go through it.
  await image.apply(file('lib'));
  assert.equal(image.stat('lib').kind, 'file');
  image.check();
});

test('parents that are files, and links in circles, are refused', async () => {
  await assert.rejects(new Image().apply(file('f'), file('f/x')), CORRUPT);
  const circle = [symlink('a', 'b'), symlink('b', 'a')];
  await assert.rejects(new Image().apply(...circle, file('a/x')), CORRUPT);
});

test('undescribed parents get default attributes and the time of their first entry', async () => {
  const image = new Image();
  await image.apply({ ...file('a/b/f'), mtime: 1234, uid: 5 });
  const { mode, uid, gid, mtime } = image.stat('a/b');
  assert.deepEqual([mode, uid, gid, mtime.seconds], [0o755, 0, 0, 1234]);
  image.check();
});

test('sockets, labels and foreign xattrs are skipped with a warning, unknown types refused', async () => {
  const image = new Image();
  await image.apply(
    { name: 'sock', mode: 0o140755 },
    { name: 'label', type: 'V' },
    {
      ...file('f'),
      xattrs: { 'com.apple.provenance': 'x', 'system.nfs4_acl': 'y', 'user.a': 'z' },
    },
    { ...symlink('s', 'f'), xattrs: { 'user.a': 'z' } },
  );
  assert.deepEqual(image.tree(), ['f = f', 's -> f']);
  assert.deepEqual(image.xattrs('f'), { 'user.a': 'z' });
  assert.equal(image.warnings.length, 5);
  await assert.rejects(image.apply({ name: 'x', type: 'Z' }), UNSUPPORTED);
  image.check();
});

test('warnings are bounded', async () => {
  const image = new Image();
  await image.apply(...Array.from({ length: 100 }, (_, i) => ({ name: `s${i}`, mode: 0o140755 })));
  assert.equal(image.warnings.length, 21);
  assert.match(image.warnings.at(-1) ?? '', /80 more/);
});

test('refuses values that ext4 or Linux cannot store, and clamps times', async () => {
  await assert.rejects(new Image().apply(file('x'.repeat(256))), UNSUPPORTED);
  await assert.rejects(new Image().apply(symlink('s', 'x'.repeat(4096))), UNSUPPORTED);
  await assert.rejects(new Image().apply(symlink('s', '')), CORRUPT);
  await assert.rejects(new Image().apply({ ...file('f'), pax: [['uid', '4294967295']] }), CORRUPT);
  await assert.rejects(
    new Image().apply({ name: 'c', type: '3', major: 4096, minor: 0 }),
    UNSUPPORTED,
  );
  const image = new Image();
  await image.apply(
    { ...file('x'.repeat(255)), pax: [['mtime', '-99999999999.5']] },
    { ...file('late'), pax: [['mtime', '99999999999.5']] },
  );
  assert.equal(image.stat('x'.repeat(255)).mtime.seconds, -(2 ** 31));
  assert.equal(image.stat('late').mtime.seconds, 2 ** 34 - 2 ** 31 - 1);
  image.check();
});

test('an error names layer, member and offset', async () => {
  await assert.rejects(new Image().apply(file('ok'), file('../x')), (error: Error) => {
    assert.match(error.message, /^Cannot apply layer at 1024, "\.\.\/x": its name leads out/);
    assert.deepEqual((error as Error & { details: unknown }).details, {
      offset: 1024,
      path: 'layer',
    });
    return true;
  });
});

test('a full disk is NoSpace', async () => {
  await assert.rejects(new Image().apply(file('big', 'x'.repeat(DISK_BYTES))), {
    code: ErrorCodes.NoSpace,
  });
});

test('lost+found survives every whiteout', async () => {
  const image = new Image();
  await image.apply(dir('lost+found'), file('lost+found/x'));
  await image.apply(file('.wh.lost+found', ''), file('.wh..wh..opq', ''));
  assert.deepEqual([...image.fs.entries(image.inode('lost+found'))], []);
  image.check();
});
