/**
 * Which room may import which: the arrows of docs/architecture.md, as a table that fails the build.
 *
 * Formats know no network and no device; transports know no registry; the snapshotter knows the daemon only
 * through its client. A test file may also import test/support. One table here, rather than a lint
 * override per folder, so that the whole picture is read at once.
 */
import { dirname, join, normalize } from 'node:path';

/** room -> the rooms it may import besides itself, `src/errors.ts` and `src/io`. */
const MAY_IMPORT: Readonly<Record<string, readonly string[] | 'anything'>> = {
  io: [],
  grpc: [],
  config: [],
  oci: [],
  lsmt: ['zfile'],
  zfile: [],
  tar: [],
  ext4: [],
  registry: ['oci'],
  cache: ['oci', 'registry'],
  image: ['lsmt', 'zfile', 'cache', 'oci', 'registry'],
  blockdev: [],
  containerd: ['grpc'],
  convert: ['tar', 'ext4', 'lsmt', 'zfile', 'oci', 'registry'],
  pull: ['containerd', 'grpc', 'oci'],
  blockd: ['blockdev', 'cache', 'config', 'grpc', 'image', 'lsmt', 'oci', 'registry', 'zfile'],
  snapshotter: ['config', 'containerd', 'grpc', 'oci', 'registry'],
  doctor: ['containerd', 'grpc', 'oci'],
  cli: 'anything',
  bin: 'anything',
};

/** Single files of another room that a room may import, because they are that room's door. */
const DOORS: Readonly<Record<string, readonly string[]>> = {
  snapshotter: [
    'src/blockd/blockd-client.ts',
    'src/image/image-config.ts',
    'src/image/image-mount.ts',
  ],
  pull: ['src/snapshotter/labels.ts'],
  doctor: [
    'src/blockd/transport-choice.ts',
    'src/blockdev/transports.ts',
    'src/cache/disk-space.ts',
    'src/snapshotter/labels.ts',
    'src/zfile/block-codec.ts',
  ],
};

/** What is wrong with the imports of one file of `src/`, one line each; nothing if all is well. */
export function layeringProblems(path: string, text: string): string[] {
  const room = path.split('/')[1] ?? '';
  if (!path.startsWith('src/') || room.endsWith('.ts')) return [];
  const allowed = MAY_IMPORT[room];
  if (allowed === undefined)
    return [`${path}:1: room "${room}" is not in tools/layering.ts, add it`];
  if (allowed === 'anything') return [];
  const problems: string[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    const specifier = /(?:from|import\() ?'(\.{1,2}\/[^']+)'/.exec(line)?.[1];
    if (specifier === undefined) continue;
    const target = normalize(join(dirname(path), specifier)).replace(/\.js$/, '.ts');
    if (isAllowed(path, room, allowed, target)) continue;
    problems.push(`${path}:${i + 1}: src/${room} may not import ${target}, see tools/layering.ts`);
  }
  return problems;
}

function isAllowed(
  path: string,
  room: string,
  allowed: readonly string[],
  target: string,
): boolean {
  if (target.startsWith('test/support/')) return path.endsWith('.test.ts');
  const [top, other = ''] = target.split('/');
  if (top !== 'src') return false;
  if (other.endsWith('.ts') || other === 'io' || other === room) return true;
  return allowed.includes(other) || (DOORS[room] ?? []).includes(target);
}
