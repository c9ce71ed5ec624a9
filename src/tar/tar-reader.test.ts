/**
 * Goal: the reader returns an archive's content byte for byte, in every dialect found in images; for any stream of
 * bytes, damaged or cut into pieces in any way, it returns only members and `Corrupt`.
 * Method: archives of test/support/tar-builder.ts for each rule, archives of GNU tar as a second opinion, then
 * mutations of sound archives under fast-check.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import {
  base256,
  extension,
  memberBytes,
  octal,
  paxBytes,
  sealed,
  type TarMember,
  tarOf,
} from '../../test/support/tar-builder.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { TarEntry } from './tar-entry.js';
import { EXTENSION_BYTES_MAX, TarReader } from './tar-reader.js';

const CORRUPT = { code: ErrorCodes.Corrupt };
const directory = mkdtempSync(join(tmpdir(), 'obd-tar-'));
after(() => rmSync(directory, { recursive: true }));

interface Read {
  readonly entry: TarEntry;
  readonly content: Buffer;
  readonly holeBytes: number;
}

async function* inPieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

async function readAll(archive: Uint8Array, pieceBytes = 700): Promise<Read[]> {
  const reader = new TarReader(inPieces(archive, pieceBytes), 'test.tar');
  const all: Read[] = [];
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const parts: Uint8Array[] = [];
    let holeBytes = 0;
    await reader.content({
      write: (chunk) => parts.push(chunk.slice()),
      hole: (length) => {
        holeBytes += length;
        parts.push(new Uint8Array(length));
      },
    });
    all.push({ entry, content: Buffer.concat(parts), holeBytes });
  }
  return all;
}

async function readOne(member: TarMember): Promise<Read> {
  const all = await readAll(tarOf([member]));
  assert.equal(all.length, 1);
  return all[0] as Read;
}

const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');

test('reads every kind of member from pieces of any size', async () => {
  const members: TarMember[] = [
    { name: 'd/', type: '5', mode: 0o1755, uid: 7, gid: 8, mtime: 9 },
    { name: 'd/f', content: 'x'.repeat(1300), mode: 0o4711 },
    { name: 'd/h', type: '1', linkName: 'd/f', size: 1300 },
    { name: 'd/s', type: '2', linkName: '../f' },
    { name: 'c', type: '3', major: 5, minor: 300 },
    { name: 'b', type: '4', major: 8, minor: 1 },
    { name: 'p', type: '6' },
    { name: 'old/', type: '\0' },
    { name: 'label', type: 'V' },
  ];
  for (const pieceBytes of [1, 511, 512, 513, 1 << 20]) {
    const all = await readAll(tarOf(members), pieceBytes);
    assert.deepEqual(
      all.map(({ entry }) => [latin1(entry.name), entry.kind, entry.sizeBytes]),
      [
        ['d/', 'directory', 0],
        ['d/f', 'file', 1300],
        ['d/h', 'hardlink', 0],
        ['d/s', 'symlink', 0],
        ['c', 'character', 0],
        ['b', 'block', 0],
        ['p', 'fifo', 0],
        ['old/', 'directory', 0],
        ['label', 'other', 0],
      ],
    );
    const [d, f, h, , c] = all as [Read, Read, Read, Read, Read];
    assert.deepEqual([d.entry.mode, d.entry.uid, d.entry.gid], [0o1755, 7, 8]);
    assert.deepEqual(d.entry.mtime, { seconds: 9, nanoseconds: 0 });
    assert.equal(f.content.toString(), 'x'.repeat(1300));
    assert.equal(f.entry.offset, 512);
    assert.equal(latin1(h.entry.linkName), 'd/f');
    assert.deepEqual([c.entry.major, c.entry.minor], [5, 300]);
  }
});

test('skips content that is not read', async () => {
  const reader = new TarReader(
    inPieces(tarOf([{ name: 'a', content: 'x'.repeat(2000) }, { name: 'b' }]), 300),
    't',
  );
  await reader.next();
  assert.equal(latin1((await reader.next())?.name ?? new Uint8Array(0)), 'b');
  assert.equal(await reader.next(), undefined);
});

test('names and xattr values stay bytes', async () => {
  const name = Buffer.concat([Buffer.from([0xff, 0xfe, 0x80, 0x2f]), Buffer.alloc(255, 0xe9)]);
  const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
  const { entry } = await readOne({
    name,
    xattrs: { 'security.capability': capability, 'user.empty': '', 'user.lines': 'a\nb=c\0d' },
  });
  assert.deepEqual(Buffer.from(entry.name), name);
  assert.deepEqual(
    [...entry.xattrs].map(([key, value]) => [key, Buffer.from(value).toString('hex')]),
    [
      ['security.capability', capability.toString('hex')],
      ['user.empty', ''],
      ['user.lines', Buffer.from('a\nb=c\0d').toString('hex')],
    ],
  );
});

test('pax records override the header: times to the nanosecond, before 1970 and beyond 2038, big ids', async () => {
  const { entry } = await readOne({
    name: 'short',
    uid: 1,
    pax: [
      ['path', 'long/er'],
      ['uid', '4000000000'],
      ['gid', '2097152'],
      ['mtime', '4102444800.123456789123'],
      ['atime', '-1.25'],
      ['ctime', '-0.000000001'],
    ],
  });
  assert.equal(latin1(entry.name), 'long/er');
  assert.deepEqual([entry.uid, entry.gid], [4000000000, 2097152]);
  assert.deepEqual(entry.mtime, { seconds: 4102444800, nanoseconds: 123456789 });
  assert.deepEqual(entry.atime, { seconds: -2, nanoseconds: 750000000 });
  assert.deepEqual(entry.ctime, { seconds: -1, nanoseconds: 999999999 });
});

test('global pax headers hold until overridden, and for one member only by x', async () => {
  const archive = Buffer.concat([
    extension('g', paxBytes([['uid', '70000']])),
    memberBytes({ name: 'a' }),
    memberBytes({ name: 'b', pax: [['uid', '1']] }),
    tarOf([{ name: 'c' }]),
  ]);
  assert.deepEqual(
    (await readAll(archive)).map(({ entry }) => entry.uid),
    [70000, 1, 70000],
  );
});

test('GNU long names and links', async () => {
  const archive = Buffer.concat([
    extension('K', Buffer.from(`${'l'.repeat(600)}\0`)),
    extension('L', Buffer.from(`${'n'.repeat(513)}\0`)),
    tarOf([{ name: 'cut', type: '2', linkName: 'cut' }, { name: 'next' }]),
  ]);
  const [long, next] = await readAll(archive);
  assert.equal(latin1(long?.entry.name as Uint8Array), 'n'.repeat(513));
  assert.equal(latin1(long?.entry.linkName as Uint8Array), 'l'.repeat(600));
  assert.equal(latin1(next?.entry.name as Uint8Array), 'next');
});

test('base-256 numbers, positive and negative', async () => {
  const { entry } = await readOne({
    name: 'a',
    patch: (header) => {
      base256(header, 108, 8, 3_000_000_000n);
      base256(header, 136, 12, -86_400n);
    },
  });
  assert.equal(entry.uid, 3_000_000_000);
  assert.equal(entry.mtime.seconds, -86_400);
});

test('a size beyond 2^53 and a negative id are refused', async () => {
  const member: TarMember = {
    name: 'a',
    patch: (header) => base256(header, 124, 12, 1n << 60n),
  };
  await assert.rejects(readOne(member), CORRUPT);
  await assert.rejects(readOne({ name: 'a', pax: [['size', '9007199254740993']] }), CORRUPT);
  await assert.rejects(
    readOne({ name: 'a', patch: (header) => base256(header, 108, 8, -2n) }),
    CORRUPT,
  );
});

test('the ustar prefix is part of the name, the GNU fields in its place are not', async () => {
  const posix = await readOne({ name: 'leaf', patch: (h) => h.write('a/b', 345) });
  assert.equal(latin1(posix.entry.name), 'a/b/leaf');
  const gnu = await readOne({
    name: 'leaf',
    patch: (header) => {
      header.write('ustar  \0', 257, 'latin1');
      octal(header, 345, 12, 77);
    },
  });
  assert.equal(latin1(gnu.entry.name), 'leaf');
  assert.deepEqual(gnu.entry.atime, { seconds: 77, nanoseconds: 0 });
});

test('header checksums: signed sums pass, wrong ones do not', async () => {
  const signed = Buffer.from(memberBytes({ name: Buffer.from([0xe9, 0xe8]) }));
  signed.fill(0x20, 148, 156);
  octal(
    signed,
    148,
    7,
    signed.subarray(0, 512).reduce((sum, b) => sum + ((b << 24) >> 24), 0),
  );
  assert.equal((await readAll(signed)).length, 1);
  const wrong = Buffer.from(tarOf([{ name: 'a' }]));
  wrong[0] = (wrong[0] as number) ^ 1;
  await assert.rejects(readAll(wrong), (error) => {
    assert.ok(hasCode(error, ErrorCodes.Corrupt));
    assert.deepEqual(error.details, { path: 'test.tar', offset: 0 });
    return true;
  });
});

test('accepts an end between members only', async () => {
  const whole = tarOf([{ name: 'a', content: 'x'.repeat(600) }]);
  assert.equal((await readAll(whole.subarray(0, 512 + 1024))).length, 1);
  assert.equal((await readAll(Buffer.concat([whole, Buffer.alloc(9000, 0x55)]))).length, 1);
  assert.equal((await readAll(new Uint8Array(0))).length, 0);
  for (const length of [1, 511, 513, 512 + 600, 512 + 1023, 512 + 1024 + 100]) {
    await assert.rejects(readAll(whole.subarray(0, length)), CORRUPT, `${length} bytes`);
  }
  const lone = Buffer.concat([Buffer.alloc(512), memberBytes({ name: 'a' })]);
  await assert.rejects(readAll(lone), CORRUPT);
  const owed = Buffer.concat([extension('L', Buffer.from('name\0')), Buffer.alloc(1024)]);
  await assert.rejects(readAll(owed), CORRUPT);
});

test('drains the stream, and returns its source when reading stops early', async () => {
  let pieces = 0;
  let closed = false;
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      for (; pieces < 5; pieces++) yield pieces === 0 ? tarOf([]) : new Uint8Array(100);
    } finally {
      closed = true;
    }
  }
  assert.equal(await new TarReader(source(), 't').next(), undefined);
  assert.deepEqual([pieces, closed], [5, true]);
  pieces = 0;
  closed = false;
  const reader = new TarReader(source(), 't');
  const failed = new TarReader(inPieces(tarOf([{ name: 'a' }]), 512), 't');
  await failed.next();
  await failed.close();
  assert.equal(await failed.next(), undefined);
  await reader.close();
});

test('rejects more than EXTENSION_BYTES_MAX of extensions, one by one and added up', async () => {
  const big = extension('x', paxBytes([['comment', Buffer.alloc(EXTENSION_BYTES_MAX)]]));
  await assert.rejects(readAll(big), CORRUPT);
  const half = (key: string) =>
    extension('g', paxBytes([[key, Buffer.alloc(EXTENSION_BYTES_MAX * 0.6)]]));
  await assert.rejects(readAll(Buffer.concat([half('a'), half('b')])), CORRUPT);
  const many = Array.from({ length: 40 }, () => extension('x', paxBytes([['a', 'b']])));
  await assert.rejects(readAll(Buffer.concat(many)), CORRUPT);
});

for (const [what, payload] of [
  ['no length', 'path=x\n'],
  ['a length beyond the header', '99 path=x\n'],
  ['a length that stops early', '8 path=x\n'],
  ['no "="', '9 pathx\n\n'],
  ['NUL in a path', '10 path=\0\n\n'],
  ['a time that is none', '14 mtime=1e99\n'],
  ['a negative uid', '9 uid=-1\n'],
  ['an xattr without a name', '18 SCHILY.xattr.=\n'],
] as const) {
  test(`rejects pax records with ${what}`, async () => {
    const archive = Buffer.concat([extension('x', Buffer.from(payload)), tarOf([{ name: 'a' }])]);
    await assert.rejects(readAll(archive), CORRUPT);
  });
}

const SPARSE_BYTES = 40 << 20;
/** Data at both ends and between, so that holes lead, separate and (truncated) trail. */
function sparseFile(): { path: string; content: Buffer } {
  const path = join(directory, 'sparse');
  const fd = openSync(path, 'w');
  const content = Buffer.alloc(SPARSE_BYTES);
  for (let i = 0; i < 30; i++) {
    const chunk = Buffer.alloc(5000, 65 + i);
    writeSync(fd, chunk, 0, chunk.length, (1 << 20) * (i + 1));
    chunk.copy(content, (1 << 20) * (i + 1));
  }
  ftruncateSync(fd, SPARSE_BYTES);
  closeSync(fd);
  return { path, content };
}

for (const flags of [
  ['--format=gnu'],
  ['--format=pax', '--sparse-version=0.0'],
  ['--format=pax', '--sparse-version=0.1'],
  ['--format=pax', '--sparse-version=1.0'],
]) {
  test(`reads GNU tar's sparse files: ${flags.join(' ')}`, async () => {
    const { content } = sparseFile();
    const args = ['-S', ...flags, '-c', '-C', directory, 'sparse'];
    const archive = execFileSync('tar', args, { maxBuffer: 1 << 26 });
    assert.ok(archive.length < SPARSE_BYTES / 8, 'tar stored the holes');
    const [read] = await readAll(archive, 65536);
    assert.equal(latin1(read?.entry.name as Uint8Array), 'sparse');
    assert.equal(read?.entry.sizeBytes, SPARSE_BYTES);
    assert.ok(read?.content.equals(content));
    assert.ok((read?.holeBytes ?? 0) > SPARSE_BYTES / 2);
  });
}

for (const [what, map] of [
  ['overlap', '0,10,5,5'],
  ['end past the file', '0,5,90,20'],
  ['cover other bytes than are stored', '0,5'],
  ['are cut in half', '0,15,20'],
  ['are not numbers', '0,x'],
] as const) {
  test(`rejects sparse extents that ${what}`, async () => {
    const pax: Array<[string, string]> = [
      ['GNU.sparse.size', '100'],
      ['GNU.sparse.map', map],
    ];
    await assert.rejects(readOne({ name: 'a', content: 'x'.repeat(15), pax }), CORRUPT);
  });
}

test('rejects more than SPARSE_EXTENTS_MAX extents before reading them', async () => {
  const pax: Array<[string, string]> = [
    ['GNU.sparse.major', '1'],
    ['GNU.sparse.minor', '0'],
    ['GNU.sparse.realsize', '100'],
  ];
  const content = `${(1 << 20) + 1}\n`.padEnd(512, '\0');
  await assert.rejects(readOne({ name: 'a', content, pax }), CORRUPT);
});

test('any mutation of an archive gives members or Corrupt', async () => {
  const archive = Buffer.concat([
    extension('g', paxBytes([['comment', 'x']])),
    extension('L', Buffer.from(`${'n'.repeat(120)}\0`)),
    tarOf([
      { name: 'a', content: 'hello', xattrs: { 'user.a': 'b' }, pax: [['mtime', '1.5']] },
      {
        name: 's',
        content: 'x'.repeat(15),
        pax: [
          ['GNU.sparse.size', '100'],
          ['GNU.sparse.map', '0,5,50,10'],
        ],
      },
      { name: 'd/', type: '5' },
    ]),
  ]);
  const flips = fc.array(fc.tuple(fc.nat(archive.length - 1), fc.nat(255)), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(flips, fc.nat(archive.length), fc.boolean(), async (edits, cut, reseal) => {
      const damaged = Buffer.from(archive);
      for (const [at, value] of edits) damaged[at] = value;
      // Without right checksums most damage would stop at the first check.
      if (reseal) for (const [at] of edits) sealed(damaged.subarray(at & ~511, (at & ~511) + 512));
      try {
        await readAll(damaged.subarray(0, cut), 333);
      } catch (error) {
        assert.ok(error instanceof ObdError && error.code === ErrorCodes.Corrupt, String(error));
      }
    }),
    { numRuns: 600 },
  );
});
