/**
 * Three layers with everything in them that has broken an image tool before, and nothing that umoci
 * refuses or cannot do: what it unpacks from them is the second opinion on what we make of them.
 *
 * Every directory has an entry, since umoci gives others the time of day.
 */
import type { TarMember } from './tar-builder.js';

const dir = (name: string, mtime = 1_500_000_000): TarMember => ({
  name,
  type: '5',
  mode: 0o755,
  mtime,
});
const file = (name: string | Uint8Array, content: string | Uint8Array = 'x'): TarMember => ({
  name,
  content,
  mtime: 1_400_000_000,
});
const symlink = (name: string, linkName: string): TarMember => ({
  name,
  type: '2',
  linkName,
  mode: 0o777,
});
const hardlink = (name: string, linkName: string): TarMember => ({ name, type: '1', linkName });
const whiteout = (name: string): TarMember => file(name, '');

/** Bytes that do not compress to nothing, different for each seed. */
function noise(lengthBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  let state = seed;
  for (let i = 0; i < lengthBytes; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[i] = state >>> 20;
  }
  return bytes;
}

/** An access ACL in the kernel's xattr form: version 2, then tag, permissions and id of each entry. */
function posixAcl(): Buffer {
  const entries = [
    [0x01, 7, 0xffffffff],
    [0x02, 6, 1234],
    [0x04, 5, 0xffffffff],
    [0x10, 7, 0xffffffff],
    [0x20, 4, 0xffffffff],
  ] as const;
  const acl = Buffer.alloc(4 + 8 * entries.length);
  acl.writeUInt32LE(2, 0);
  entries.forEach(([tag, permissions, id], i) => {
    acl.writeUInt16LE(tag, 4 + i * 8);
    acl.writeUInt16LE(permissions, 6 + i * 8);
    acl.writeUInt32LE(id, 8 + i * 8);
  });
  return acl;
}

const CAPABILITY = Buffer.from('0100000200ff800000000000000000000000c0de', 'hex');
const RAW_NAME = Buffer.from([0x66, 0xff, 0xfe, 0x80, 0x0a, 0x5c]);

const sizes = [0, 1, 59, 60, 61, 511, 4095, 4096, 4097, 65536, 300_001];

const base: TarMember[] = [
  { name: './', type: '5', mode: 0o755, mtime: 1_000_000_000 },
  dir('sizes'),
  ...sizes.map((size) => file(`sizes/${size}`, noise(size, size))),
  { ...file('sizes/zeroes', new Uint8Array(50_000)) },
  dir('many'),
  ...Array.from({ length: 1500 }, (_, i) => file(`many/entry-number-${i}`, `${i}`)),
  dir('links'),
  ...[1, 59, 60, 61, 255, 4000].map((n) => symlink(`links/${n}`, 'l'.repeat(n))),
  symlink('links/uncleaned', './a/../..//b/.'),
  file('links/one', 'shared'),
  hardlink('links/two', 'links/one'),
  hardlink('links/three', './links/two'),
  symlink('links/soft', 'one'),
  hardlink('links/soft-too', 'links/soft'),
  dir('nodes'),
  { name: 'nodes/null', type: '3', mode: 0o666, major: 1, minor: 3 },
  { name: 'nodes/big', type: '3', mode: 0o600, major: 300, minor: 70_000 },
  { name: 'nodes/disk', type: '4', mode: 0o660, gid: 6, major: 8, minor: 17 },
  { name: 'nodes/fifo', type: '6', mode: 0o622 },
  dir('owners'),
  { ...file('owners/high'), uid: 70_000, gid: 65_535 },
  { ...file('owners/higher'), uid: 3_000_000, gid: 4_000_000_000 },
  { ...file('owners/setuid'), mode: 0o4755 },
  { ...file('owners/setgid'), mode: 0o2711, gid: 5 },
  { ...dir('owners/sticky'), mode: 0o1777 },
  { ...file('owners/none'), mode: 0 },
  dir('times'),
  { ...file('times/nanoseconds'), pax: [['mtime', '1234567890.987654321']] },
  { ...file('times/2040'), pax: [['mtime', '2208988800.5']] },
  // Go counts nanoseconds in 64 bits, which end in 2262.
  { ...file('times/2200'), pax: [['mtime', '7258118400.25']] },
  { ...file('times/1960'), pax: [['mtime', '-315619200.75']] },
  { ...file('times/epoch'), mtime: 0 },
  dir('xattrs'),
  { ...file('xattrs/capability'), mode: 0o755, xattrs: { 'security.capability': CAPABILITY } },
  { ...file('xattrs/acl'), xattrs: { 'system.posix_acl_access': posixAcl() } },
  {
    ...dir('xattrs/dir'),
    xattrs: { 'system.posix_acl_default': posixAcl(), 'user.on.dir': 'yes' },
  },
  { ...file('xattrs/large'), xattrs: { 'user.large': noise(3000, 5) } },
  { ...file('xattrs/several'), xattrs: { 'user.a': 'same', 'user.b': 'same', 'trusted.c': 'c' } },
  { ...file('xattrs/several-too'), xattrs: { 'user.a': 'same', 'trusted.c': 'c' } },
  { ...symlink('xattrs/link', 'large'), xattrs: { 'trusted.on.link': 'l' } },
  dir('names'),
  file(Buffer.concat([Buffer.from('names/'), RAW_NAME])),
  file(`names/${'n'.repeat(255)}`),
  file(`names/${'ü'.repeat(127)}`),
  ...['a', 'b', 'c'].flatMap((leaf) => {
    const path = Array.from({ length: 12 }, (_, i) => `${leaf}-a-rather-long-directory-${i}`);
    return path.map((_, i) => dir(`names/${path.slice(0, i + 1).join('/')}`));
  }),
  dir('sparse'),
  {
    ...file('sparse/file', 'headtail'),
    pax: [
      ['GNU.sparse.size', '20000000'],
      ['GNU.sparse.numblocks', '2'],
      ['GNU.sparse.map', '4096,4,19000000,4'],
    ],
  },
  dir('usr'),
  dir('usr/lib'),
  file('usr/lib/old'),
  symlink('lib', 'usr/lib'),
  dir('opaque'),
  file('opaque/old'),
  dir('opaque/sub'),
  file('opaque/sub/old'),
  dir('gone'),
  dir('gone/deep'),
  file('gone/deep/file', noise(9000, 3)),
  dir('change'),
  file('change/file-to-dir'),
  dir('change/dir-to-file'),
  file('change/dir-to-file/child'),
  symlink('change/link-to-dir', 'dir-to-file'),
  dir('change/dir-to-link'),
  file('change/file-to-link'),
  { name: 'change/fifo-to-file', type: '6' },
];

const second: TarMember[] = [
  whiteout('.wh.gone'),
  whiteout('sizes/.wh.4097'),
  whiteout('links/.wh.one'),
  whiteout('never/.wh.was'),
  whiteout('nodes/.wh.fifo'),
  file('opaque/before'),
  whiteout('opaque/.wh..wh..opq'),
  file('opaque/after'),
  dir('change/file-to-dir'),
  file('change/file-to-dir/child'),
  file('change/dir-to-file', 'now a file'),
  dir('change/link-to-dir'),
  symlink('change/dir-to-link', '../usr'),
  symlink('change/file-to-link', 'nowhere'),
  file('change/fifo-to-file', noise(5000, 8)),
  file('lib/through-the-link', noise(2000, 9)),
  hardlink('across', 'links/two'),
  hardlink('usr/lib/across', 'lib/through-the-link'),
  file('links/three', 'no longer shared'),
  { ...dir('times', 1_600_000_000), mode: 0o700, uid: 12 },
  { ...dir('xattrs/dir'), xattrs: { 'user.new': 'only' } },
  { ...file('xattrs/several'), xattrs: {} },
  ...Array.from({ length: 1400 }, (_, i) => whiteout(`many/.wh.entry-number-${i}`)),
];

const third: TarMember[] = [
  { name: './', type: '5', mode: 0o751, uid: 1, gid: 2, mtime: 1_700_000_000 },
  whiteout('sizes/.wh..wh..opq'),
  file('sizes/again', noise(400_000, 11)),
  dir('gone', 1_650_000_000),
  file('gone/back'),
  ...Array.from({ length: 300 }, (_, i) => file(`many/new-${i}`, noise(i * 17, i))),
  whiteout('change/.wh.link-to-dir'),
  whiteout('.wh.lib'),
  file('sparse/file', 'dense now'),
];

/** Bottom first. */
export const NASTY_LAYERS: ReadonlyArray<readonly TarMember[]> = [base, second, third];
