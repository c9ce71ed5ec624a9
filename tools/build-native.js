/**
 * Builds the native add-ons: every folder of native/ that has a binding.gyp, unless its output is newer than all
 * its sources and was built for this Node. Part of `npm run build`.
 *
 * JavaScript, because it runs before anything else of this repository does.
 */
import './require-node.js';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const NATIVE = join(import.meta.dirname, '..', 'native');
const NODE_GYP = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');
/** Target of a build; an add-on for another Node or machine loads badly or not at all. */
const BUILT_FOR = `${process.version} ${process.arch}\n`;

/** With headers in this Node's prefix, node-gyp need not download them. */
function headersOption() {
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  const version = join(prefix, 'include', 'node', 'node_version.h');
  const major = process.versions.node.split('.')[0];
  const matches =
    existsSync(version) &&
    new RegExp(`NODE_MAJOR_VERSION ${major}$`, 'm').test(readFileSync(version, 'utf8'));
  return matches ? [`--nodedir=${prefix}`] : [];
}

/** @param {string} folder */
function newestSource(folder) {
  const folders = [join(folder, 'src'), join(NATIVE, 'include')];
  const sources = folders.flatMap((from) => readdirSync(from).map((name) => join(from, name)));
  return Math.max(
    ...[join(folder, 'binding.gyp'), ...sources].map((path) => statSync(path).mtimeMs),
  );
}

/** @param {string} folder */
function isBuilt(folder) {
  const stamp = join(folder, 'build', 'built-for');
  return (
    existsSync(stamp) &&
    readFileSync(stamp, 'utf8') === BUILT_FOR &&
    statSync(stamp).mtimeMs > newestSource(folder)
  );
}

for (const name of readdirSync(NATIVE)) {
  const folder = join(NATIVE, name);
  if (!existsSync(join(folder, 'binding.gyp')) || isBuilt(folder)) continue;
  try {
    execFileSync(process.execPath, [NODE_GYP, 'rebuild', ...headersOption()], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      encoding: 'utf8',
    });
  } catch (error) {
    process.stderr.write(`Cannot build native/${name}:\n${error.stdout}${error.stderr}\n`);
    process.exit(1);
  }
  writeFileSync(join(folder, 'build', 'built-for'), BUILT_FOR);
}
