/**
 * Makes dist/bin, the complete programs: one file per program, files of shared code (loading some five hundred modules is
 * most of the start time), and the add-ons, fuse-file, .proto files and npm packages with add-ons that the programs need.
 * Last step of `npm run build`.
 *
 * dist/bin is a symbolic link to a folder whose programs never change. One rename replaces the link when the new folder is
 * complete. So a program starts at any moment of a build, and a running daemon finds the files it began with. Older
 * folders stay while a process uses them.
 *
 * Each program is a short file that turns on Node's compile cache, which the build fills, and imports the rest. It takes 40 to
 * 50 ms off each start.
 *
 * Each program's first line names the Node that built it, since the first one in PATH may be too old; so the units and
 * `npm link` need not know where that Node is.
 *
 * JavaScript, because it runs before the build is complete.
 */
import './require-node.js';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';
import { basename, dirname, extname, join, relative } from 'node:path';
import { build } from 'esbuild';

const ROOT = dirname(import.meta.dirname);
const DIST = join(ROOT, 'dist');
const LINK = join(DIST, 'bin');
const PREFIX = 'bin-';
const PROGRAMS = ['obdconv', 'obdctl', 'obd-blockd', 'obd-snapshotter'];
const WORKER = 'worker-entry';
const CACHE = 'compile-cache';
/** For each program. */
const FILL_MS_MAX = 30_000;
/** Packages that find their add-on relative to their own path. */
const WITH_ADD_ONS = ['@node-rs/crc32', 'better-sqlite3', 'zstd-napi'];
/** Dependencies of WITH_ADD_ONS that only npm's installation needs. */
const INSTALL_ONLY = ['@types/node', 'node-addon-api', 'prebuild-install'];
const RUNTIME_FILES = ['.js', '.cjs', '.mjs', '.json', '.node'];
/** Sources of add-ons, and add-ons for other systems. */
const NOT_AT_RUN_TIME =
  /\/(?:deps|src|obj|obj\.target|node_modules|(?:darwin|win32)-[^/]*)(?:\/|$)/;
/** Defines `require` for the bundled CommonJS modules. */
const REQUIRE =
  "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);";

/** @param {string} target */
async function bundlePrograms(target) {
  const entries = [...PROGRAMS.map((name) => `bin/${name}`), `blockd/${WORKER}`];
  const { metafile } = await build({
    entryPoints: entries.map((name) => ({
      in: join(DIST, 'src', `${name}.js`),
      out: mainOf(basename(name)),
    })),
    alias: { 'string-width': join(import.meta.dirname, 'text-width.cjs') },
    outdir: target,
    bundle: true,
    splitting: true,
    platform: 'node',
    target: 'node22',
    format: 'esm',
    external: WITH_ADD_ONS,
    banner: { js: REQUIRE },
    sourcemap: true,
    metafile: true,
    logLevel: 'warning',
  });
  for (const name of [...PROGRAMS, WORKER]) writeProgram(join(target, `${name}.js`), name);
  const imported = Object.values(metafile.outputs).flatMap(({ imports }) => imports);
  const packages = imported
    .filter(({ path, external }) => external === true && !isBuiltin(path))
    .map(({ path }) =>
      path
        .split('/')
        .slice(0, path.startsWith('@') ? 2 : 1)
        .join('/'),
    );
  return new Set(packages);
}

/** @param {string} name */
function mainOf(name) {
  return `${name}-main`;
}

/**
 * The cache is turned on before the other modules are compiled, so they are imported afterwards. An old Node has no such
 * function; the program reports that Node. Node also writes the cache, so only the owner's programs use it: root would leave
 * files that the owner's next build cannot remove.
 *
 * @param {string} path
 * @param {string} name
 */
function writeProgram(path, name) {
  writeFileSync(
    path,
    `#!${process.execPath}
import { statSync } from 'node:fs';
import * as nodeModule from 'node:module';
const cache = \`\${import.meta.dirname}/${CACHE}\`;
const owner = statSync(cache, { throwIfNoEntry: false })?.uid;
if (owner === process.getuid()) nodeModule.enableCompileCache?.(cache);
await import('./${mainOf(name)}.js');
`,
  );
  if (name !== WORKER) chmodSync(path, 0o755);
}

/**
 * Fills the compile cache by running the programs as far as they have loaded their modules: the daemons up to their options,
 * obdctl up to a containerd that is not there.
 *
 * @param {string} target
 */
function fillCompileCache(target) {
  mkdirSync(join(target, CACHE));
  const nowhere = ['--address', join(target, 'no.sock'), '127.0.0.1:1/no:image'];
  for (const name of PROGRAMS) {
    const args = name === 'obdctl' ? ['rpull', '--plain-http', ...nowhere] : ['--help'];
    const program = [join(target, `${name}.js`), ...args];
    spawnSync(process.execPath, program, { stdio: 'ignore', timeout: FILL_MS_MAX });
  }
}

/**
 * Copies what a package needs at run time, and the packages that it depends on.
 *
 * @param {string} name
 * @param {string} from - The folder of the package that asks for it.
 * @param {string} target
 */
function copyPackage(name, from, target) {
  const folder = packageFolder(name, from);
  const copy = join(target, 'node_modules', name);
  // An optional dependency for another machine is not installed.
  if (folder === undefined || existsSync(copy)) return;
  cpSync(folder, copy, {
    recursive: true,
    filter: (path) =>
      !NOT_AT_RUN_TIME.test(`/${relative(folder, path)}`) &&
      (statSync(path).isDirectory() || RUNTIME_FILES.includes(extname(path))),
  });
  const { dependencies = {}, optionalDependencies = {} } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  );
  for (const needed of Object.keys({ ...dependencies, ...optionalDependencies })) {
    if (!INSTALL_ONLY.includes(needed)) copyPackage(needed, folder, target);
  }
}

/**
 * @param {string} name
 * @param {string} from
 */
function packageFolder(name, from) {
  const places = createRequire(join(from, 'package.json')).resolve.paths(name) ?? [];
  return places.map((place) => join(place, name)).find((folder) => existsSync(folder));
}

/** @param {string} target */
function copyNative(target) {
  const native = join(ROOT, 'native');
  for (const name of readdirSync(native)) {
    const built = join('native', name, 'build', 'Release');
    if (!existsSync(join(ROOT, built))) continue;
    for (const file of readdirSync(join(ROOT, built))) {
      if (extname(file) !== '.node' && file !== name) continue;
      cpSync(join(ROOT, built, file), join(target, built, file));
    }
  }
}

/** Makes dist/bin lead to `target`. @param {string} target */
function swapIn(target) {
  const fresh = join(DIST, `${basename(target)}.link`);
  symlinkSync(basename(target), fresh);
  // Before this layout, dist/bin was the folder itself: only the first upgrade has a moment without it.
  if (existsSync(LINK) && !lstatSync(LINK).isSymbolicLink()) {
    renameSync(LINK, mkdtempSync(join(DIST, PREFIX)));
  }
  renameSync(fresh, LINK);
}

/** A build that is not done by then was killed. */
const UNFINISHED_MS_MAX = 3_600_000;

/**
 * Removes folders of earlier builds that no process uses: a process's maps name the add-ons it has loaded. The previous
 * folder always stays, because another user's maps may be unreadable.
 *
 * @param {string} target
 * @param {string | undefined} previous
 */
function prune(target, previous) {
  const maps = readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/maps`, 'utf8');
      } catch {
        return '';
      }
    });
  for (const name of readdirSync(DIST)) {
    const path = join(DIST, name);
    if (!name.startsWith(PREFIX) || path === target || name === previous) continue;
    // Another build may be filling it: package.json comes last.
    const isComplete = existsSync(join(path, 'package.json'));
    if (!isComplete && Date.now() - statSync(path).mtimeMs < UNFINISHED_MS_MAX) continue;
    if (!maps.some((text) => text.includes(`${path}/`))) rmSync(path, { recursive: true });
  }
}

const previous =
  existsSync(LINK) && lstatSync(LINK).isSymbolicLink() ? readlinkSync(LINK) : undefined;
const target = mkdtempSync(join(DIST, PREFIX));
chmodSync(target, 0o755);
try {
  for (const name of await bundlePrograms(target)) copyPackage(name, ROOT, target);
  copyNative(target);
  cpSync(join(ROOT, 'proto'), join(target, 'proto'), { recursive: true });
  const { name, version, type, license } = JSON.parse(
    readFileSync(join(ROOT, 'package.json'), 'utf8'),
  );
  // The programs find the package.json of the repository until theirs is there.
  fillCompileCache(target);
  writeFileSync(join(target, 'package.json'), JSON.stringify({ name, version, type, license }));
  swapIn(target);
} catch (error) {
  rmSync(target, { recursive: true, force: true });
  throw error;
}
prune(target, previous);
