/** Images that containers run from: a shell and cat of this machine with their libraries, and a test's own files. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type LayerSource, sha256 } from './oci-layout-builder.js';

const LAYER_TAR = 'application/vnd.oci.image.layer.v1.tar';

/** A layer of the files that `fill` writes to `root`, a new directory. */
export function layerOf(root: string, fill: (root: string) => void): LayerSource {
  mkdirSync(root);
  fill(root);
  const args = [
    '--create',
    '--sort=name',
    '--mtime=@1',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-C',
    root,
    '.',
  ];
  const blob = execFileSync('tar', args, { maxBuffer: 64 << 20 });
  return { mediaType: LAYER_TAR, blob, diffId: sha256(blob) };
}

/** Adds a program and its linked libraries at the loader's paths. */
export function addProgram(root: string, program: string): void {
  const libraries = execFileSync('ldd', [program], { encoding: 'utf8' }).match(/\/\S+/g) ?? [];
  for (const path of [program, ...libraries]) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    cpSync(realpathSync(path), join(root, path));
  }
}

export function goArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}
