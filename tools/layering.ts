/**
 * Which room may import which: the arrows of docs/architecture.md, as a table that fails the build.
 *
 * Formats know no network and no device; transports know no registry and not each other; the snapshotter knows the
 * daemon only through its client; programs do not import each other. The check fails on
 *
 *   1. an import that the table does not permit, be it by `from`, `import()`, `import.meta.resolve()`, `require()` or
 *      `new URL()`, as the module of a thread, or for side effects or types only;
 *   2. a permission or a door that no production file uses;
 *   3. a circle of files, even one of types;
 *   4. a room without a row here, and a row of docs/architecture.md that differs from this table.
 *
 * One table here, rather than a lint override per folder, so that the whole picture is read at once.
 */
import { dirname, join, normalize } from 'node:path';
import { sourceText } from './source-text.js';
import type { SourceFile } from './tidy.js';

/**
 * room -> the rooms it may import besides itself, `src/*.ts` and `src/io`. A folder within a room is a separate room
 * if it has a row.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  io: [],
  grpc: [],
  config: [],
  oci: [],
  zfile: [],
  lsmt: [],
  'hot-blob': ['zfile'],
  layers: ['lsmt', 'oci', 'zfile'],
  tar: [],
  ext4: [],
  registry: ['oci'],
  cache: [],
  image: ['layers', 'load-order', 'lsmt', 'oci', 'registry', 'zfile'],
  predict: ['ext4'],
  'load-order': ['lsmt', 'oci'],
  blockdev: ['blockdev/fuse', 'blockdev/nbd-kernel', 'blockdev/tcmu', 'blockdev/ublk'],
  'blockdev/fuse': ['blockdev'],
  'blockdev/nbd': ['blockdev'],
  'blockdev/nbd-kernel': ['blockdev', 'blockdev/nbd'],
  'blockdev/tcmu': ['blockdev'],
  'blockdev/ublk': ['blockdev'],
  containerd: ['grpc'],
  convert: ['ext4', 'layers', 'load-order', 'lsmt', 'oci', 'predict', 'registry', 'tar', 'zfile'],
  pull: ['containerd', 'grpc', 'oci'],
  blockd: [
    'blockdev',
    'blockdev/nbd',
    'cache',
    'config',
    'grpc',
    'hot-blob',
    'image',
    'layers',
    'load-order',
    'oci',
    'registry',
    'zfile',
  ],
  snapshotter: ['config', 'containerd', 'grpc', 'oci', 'registry'],
  doctor: ['config', 'containerd', 'grpc', 'oci'],
  cli: ['config'],
  'cli/obd-blockd': ['blockd', 'cli', 'config'],
  'cli/obd-snapshotter': ['cli', 'config', 'registry', 'snapshotter'],
  'cli/obdconv': ['cli', 'convert', 'layers', 'oci', 'registry'],
  'cli/obdctl': [
    'cli',
    'containerd',
    'doctor',
    'grpc',
    'image',
    'layers',
    'load-order',
    'oci',
    'predict',
    'pull',
    'registry',
    'zfile',
  ],
  bin: ['cli', 'cli/obd-blockd', 'cli/obd-snapshotter', 'cli/obdconv', 'cli/obdctl'],
};

/** Single files of another room that a room may import, because they are that room's door. */
const DOORS: Readonly<Record<string, readonly string[]>> = {
  blockd: ['src/ext4/directory-census.ts'],
  snapshotter: [
    'src/blockd/blockd-client.ts',
    'src/image/image-config.ts',
    'src/image/image-mount.ts',
    'src/layers/layer-kind.ts',
    'src/layers/lower-layer.ts',
    'src/layers/opening-parts.ts',
    'src/layers/overlaybd-annotations.ts',
    'src/load-order/command-line.ts',
    'src/load-order/load-order-annotations.ts',
    'src/predict/start-command.ts',
  ],
  pull: ['src/layers/layer-kind.ts', 'src/snapshotter/labels.ts'],
  doctor: [
    'src/blockd/transport-choice.ts',
    'src/blockdev/transports.ts',
    'src/cache/disk-space.ts',
    'src/snapshotter/labels.ts',
    'src/snapshotter/snapshotter-config.ts',
    'src/zfile/block-codec.ts',
  ],
  'cli/obd-snapshotter': ['src/blockd/blockd-client.ts', 'src/layers/layer-kinds.ts'],
  'cli/obdctl': ['src/blockd/blockd-client.ts'],
};

/** The rooms that the tests of a room import besides those. All tests may import `test/support`. */
const TESTS_MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'blockdev/fuse': ['blockdev/nbd'],
  blockd: ['lsmt'],
  image: ['cache'],
};

/** Matches the code before a module path, in all forms in which one module names another. */
const NAMES_A_MODULE =
  /(?:\b(?:from|import) ?\(?|\bimport\.meta\.resolve\(|\bimport\.meta\.url,|\brequire\(|\bcreateRequire\([\w.]*\)\(|\bnew URL\() ?$/;

interface Import {
  readonly path: string;
  readonly line: number;
  readonly target: string;
}

/** Checks the imports of all files of `src/`; returns one line for each problem. */
export function layeringProblems(files: readonly SourceFile[]): string[] {
  const own = files.filter(({ path }) => path.startsWith('src/'));
  const problems: string[] = [];
  const unused = new Set(Object.keys(MAY_IMPORT).flatMap(permissionsOf));
  const imports = own.flatMap(importsOf);
  for (const { path } of own) {
    const room = roomOf(path);
    if (room !== '' && MAY_IMPORT[room] === undefined)
      problems.push(`${path}:1: room "${room}" is not in tools/layering.ts, add it`);
  }
  for (const { path, line, target } of imports) {
    const room = roomOf(path);
    const permission = permissionFor(room, target);
    if (!isTest(path)) unused.delete(`${room} -> ${permission}`);
    if (permission !== undefined || isTestsOwn(path, room, target)) continue;
    problems.push(`${path}:${line}: src/${room} may not import ${target}, see tools/layering.ts`);
  }
  for (const permission of unused) {
    problems.push(`tools/layering.ts:1: permission ${permission} is not used, remove it`);
  }
  return [...problems, ...circlesOf(imports)];
}

/**
 * Compares the table of rooms in docs/architecture.md with this one: the last column of a row that begins with
 * a folder of `src/` lists what the room may import.
 */
export function roomTableProblems(path: string, text: string): string[] {
  const problems: string[] = [];
  const missing = new Set(Object.keys(MAY_IMPORT));
  for (const [i, line] of text.split('\n').entries()) {
    if (!line.startsWith('| `src/')) continue;
    const [first = '', , last = ''] = line
      .split('|')
      .slice(1)
      .map((cell) => cell.trim());
    for (const [, room = ''] of first.matchAll(/`src\/([\w/-]+)\/`/g)) {
      missing.delete(room);
      const should = [
        ...(MAY_IMPORT[room] ?? []),
        ...(DOORS[room] ?? []).map((door) => `\`${door}\``),
      ];
      if (MAY_IMPORT[room] === undefined || last !== (should.join(', ') || '-')) {
        const says = should.join(', ') || '-';
        problems.push(
          `${path}:${i + 1}: src/${room} differs from tools/layering.ts, write: ${says}`,
        );
      }
    }
  }
  for (const room of missing) problems.push(`${path}:1: no row for src/${room}/, add it`);
  return problems;
}

function importsOf({ path, text }: SourceFile): Import[] {
  return sourceText(path, text)
    .strings.filter((found) => /^\.{1,2}\//.test(found.text) && NAMES_A_MODULE.test(found.before))
    .map((found) => ({ path, line: found.line, target: moduleAt(dirname(path), found.text) }));
}

/** The module of a thread is named without its extension. */
function moduleAt(folder: string, specifier: string): string {
  return normalize(join(folder, specifier)).replace(/(\.[jt]s)?$/, '.ts');
}

/** The room of a file of `src/`; empty for files directly in `src/`. */
function roomOf(path: string): string {
  const folders = path.split('/').slice(1, -1);
  const inner = folders.slice(0, 2).join('/');
  return MAY_IMPORT[inner] !== undefined ? inner : (folders[0] ?? '');
}

function permissionsOf(room: string): string[] {
  return [...(MAY_IMPORT[room] ?? []), ...(DOORS[room] ?? [])].map(
    (other) => `${room} -> ${other}`,
  );
}

/** The entry of a table that permits the import, `always` if it needs none, undefined if there is none. */
function permissionFor(room: string, target: string): string | undefined {
  if (!target.startsWith('src/')) return undefined;
  const other = roomOf(target);
  if (other === '' || other === room) return 'always';
  if (room === '') return undefined;
  if (other === 'io') return 'always';
  if (MAY_IMPORT[room]?.includes(other)) return other;
  return DOORS[room]?.includes(target) ? target : undefined;
}

function isTest(path: string): boolean {
  return path.endsWith('.test.ts');
}

function isTestsOwn(path: string, room: string, target: string): boolean {
  if (!isTest(path)) return false;
  return (
    target.startsWith('test/support/') || (TESTS_MAY_IMPORT[room] ?? []).includes(roomOf(target))
  );
}

/** Each circle once, from the first of its files that is met. */
function circlesOf(imports: readonly Import[]): string[] {
  const targets = new Map<string, Import[]>();
  for (const one of imports) targets.set(one.path, [...(targets.get(one.path) ?? []), one]);
  const problems: string[] = [];
  const done = new Set<string>();
  const way: string[] = [];
  const visit = (path: string) => {
    way.push(path);
    for (const { target, line } of targets.get(path) ?? []) {
      const at = way.indexOf(target);
      if (at !== -1) {
        const circle = [...way.slice(at), target].join(' -> ');
        problems.push(`${path}:${line}: circle ${circle}, move what both need`);
      } else if (!done.has(target)) visit(target);
    }
    way.pop();
    done.add(path);
  };
  for (const path of targets.keys()) if (!done.has(path)) visit(path);
  return problems;
}
