/**
 * Compares two directory trees in everything an image can say about a file: path, type, mode, owner,
 * size, content, link count and which names share an inode, xattrs, device number, mtime to the
 * nanosecond, symlink target.
 *
 * Paths are bytes throughout. Node has no call for xattrs, so one python3 process reads all of them
 * (os.listxattr on byte paths). Needs to be able to read everything: run it as root.
 *
 *     const differences = compareTrees('/mnt/a', '/mnt/b', { ignore: ['lost+found'] });
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  type BigIntStats,
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs';

/** Listing more would hide the pattern that explains them. */
const DIFFERENCES_MAX = 50;
const SLASH = Buffer.from('/');

export interface CompareOptions {
  /** Paths relative to the root, left out with everything under them. */
  readonly ignore?: readonly string[];
}

/** One line per difference, at most {@link DIFFERENCES_MAX}; none if the trees are alike. */
export function compareTrees(left: string, right: string, options: CompareOptions = {}): string[] {
  const ignored = new Set(options.ignore ?? []);
  const a = describeTree(left, ignored);
  const b = describeTree(right, ignored);
  const differences: string[] = [];
  for (const path of [...new Set([...a.keys(), ...b.keys()])].sort()) {
    const one = a.get(path);
    const other = b.get(path);
    const shown = JSON.stringify(Buffer.from(path, 'latin1').toString('utf8'));
    if (one === undefined) differences.push(`${shown}: only in ${right}`);
    else if (other === undefined) differences.push(`${shown}: only in ${left}`);
    else {
      for (const key of new Set([...Object.keys(one), ...Object.keys(other)])) {
        const uncounted = key === 'links' && !(one[key] && other[key]);
        if (one[key] !== other[key] && !uncounted) {
          differences.push(`${shown}: ${key} is ${one[key]} in ${left}, ${other[key]} in ${right}`);
        }
      }
    }
    if (differences.length >= DIFFERENCES_MAX) return differences.slice(0, DIFFERENCES_MAX);
  }
  return differences;
}

/** How many paths a tree has: a comparison of two empty trees proves nothing. */
export function countPaths(root: string): number {
  return walk(root, new Set()).size;
}

type Description = Record<string, string>;

function describeTree(root: string, ignored: ReadonlySet<string>): Map<string, Description> {
  const stats = walk(root, ignored);
  const xattrs = xattrsOf(root, [...stats.keys()]);
  const firstName = new Map<bigint, string>();
  const tree = new Map<string, Description>();
  for (const [path, stat] of stats) {
    const full = join(root, path);
    const kind = kindOf(stat);
    const description: Description = {
      kind,
      mode: (stat.mode & 0o7777n).toString(8),
      owner: `${stat.uid}:${stat.gid}`,
      mtime: String(stat.mtimeNs),
      xattrs: xattrs.get(path) ?? '',
    };
    // btrfs says 1 for every directory; the root also has lost+found on one side.
    if (kind !== 'directory' || (stat.nlink > 1n && path !== '')) {
      description['links'] = String(stat.nlink);
    }
    if (kind !== 'directory') {
      if (!firstName.has(stat.ino)) firstName.set(stat.ino, path);
      description['same inode as'] = firstName.get(stat.ino) ?? '';
    }
    if (kind === 'file') {
      description['size'] = String(stat.size);
      description['content'] = contentDigest(full);
    }
    if (kind === 'symlink') {
      description['target'] = readlinkSync(full, { encoding: 'buffer' }).toString('latin1');
    }
    if (kind === 'character' || kind === 'block') description['device'] = String(stat.rdev);
    tree.set(path, description);
  }
  return tree;
}

/** Paths as latin1, relative to the root, which is ''. */
function walk(root: string, ignored: ReadonlySet<string>): Map<string, BigIntStats> {
  const found = new Map<string, BigIntStats>();
  const todo = [''];
  for (let path = todo.pop(); path !== undefined; path = todo.pop()) {
    if (ignored.has(path)) continue;
    const stat = lstatSync(join(root, path), { bigint: true });
    found.set(path, stat);
    if (!stat.isDirectory()) continue;
    for (const name of readdirSync(join(root, path), { encoding: 'buffer' })) {
      todo.push(path === '' ? name.toString('latin1') : `${path}/${name.toString('latin1')}`);
    }
  }
  return new Map([...found].sort(([x], [y]) => (x < y ? -1 : 1)));
}

function join(root: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(root), SLASH, Buffer.from(path, 'latin1')]);
}

function kindOf(stat: BigIntStats): string {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'character';
  if (stat.isBlockDevice()) return 'block';
  return stat.isFIFO() ? 'fifo' : 'socket';
}

function contentDigest(path: Buffer): string {
  const hash = createHash('sha256');
  const piece = Buffer.alloc(1 << 20);
  const fd = openSync(path, 'r');
  try {
    for (let got = readSync(fd, piece); got > 0; got = readSync(fd, piece)) {
      hash.update(piece.subarray(0, got));
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

/** Reads paths separated by NUL, answers a line of `name=hex` for each, sorted by name. */
const READ_XATTRS = `
import os, sys
root = os.fsencode(sys.argv[1])
for path in sys.stdin.buffer.read().split(b"\\0"):
    full = root + b"/" + path
    pairs = []
    for name in sorted(os.listxattr(full, follow_symlinks=False)):
        value = os.getxattr(full, name, follow_symlinks=False)
        pairs.append(os.fsencode(name).hex() + "=" + value.hex())
    print(" ".join(pairs))
`;

function xattrsOf(root: string, paths: readonly string[]): Map<string, string> {
  const input = Buffer.from(paths.join('\0'), 'latin1');
  const output = execFileSync('python3', ['-c', READ_XATTRS, root], {
    input,
    encoding: 'latin1',
    maxBuffer: 1 << 30,
  });
  const lines = output.split('\n');
  return new Map(paths.map((path, i) => [path, namesDecoded(lines[i] as string)]));
}

function namesDecoded(line: string): string {
  return line.replace(/(^| )([0-9a-f]+)=/g, (_, gap: string, name: string) => {
    return `${gap}${Buffer.from(name, 'hex').toString('latin1')}=`;
  });
}
