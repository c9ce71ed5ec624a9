/**
 * Puts each program, with all that it loads, into one file of dist/bin, and what several have in common into files beside
 * it: loading some five hundred modules is most of what a start takes, and containers wait for the daemon's when it was
 * killed. Part of `npm run build`, after tsc.
 *
 * Add-ons stay where npm put or `npm run build` built them, and so do the .proto files: all are looked for above the file
 * that needs them, and dist/bin is as near to the root as dist/src is.
 *
 * JavaScript, because it runs before the build is complete.
 */
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';

const DIST = join(dirname(import.meta.dirname), 'dist');
const OUTPUT = join(DIST, 'bin');
/** What has an add-on finds it by its own place. */
const WITH_ADD_ONS = ['@node-rs/crc32', 'better-sqlite3', 'lz4-napi', 'zstd-napi'];
/** For the CommonJS modules in it, which expect it. */
const REQUIRE =
  "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);";

rmSync(OUTPUT, { recursive: true, force: true });
await build({
  entryPoints: [
    ...['obdconv', 'obdctl', 'obd-blockd', 'obd-snapshotter'].map((name) => `bin/${name}`),
    'blockd/worker-entry',
  ].map((name) => join(DIST, 'src', `${name}.js`)),
  outdir: OUTPUT,
  entryNames: '[name]',
  bundle: true,
  splitting: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  external: WITH_ADD_ONS,
  banner: { js: REQUIRE },
  sourcemap: true,
  logLevel: 'warning',
});
