/**
 * Files made by upstream overlaybd's own tools, which are stored next to the repository and not in it. Without them,
 * their tests are skipped visibly.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { VirtualDisk } from '../../src/blockdev/virtual-disk.js';
import { readFully } from '../../src/io/random-access-file.js';

const FOLDER = folder();

/** For node:test's `skip`: why the vectors cannot be used, or false. */
export const vectorsMissing: string | false =
  FOLDER === undefined ? 'no shared/vectors folder beside the repository' : false;

/** sha256 of the whole virtual disk of each stack, as published with the vectors. */
export const DISK_SHA256 = {
  l1: 'dd01d5ede7112297520bf2a1fde27a29df455f2dbb594a39151cdf6e3bcdab7b',
  l1l2: 'cc458780a4de2d26e25f1aaad96047b943a16aa5443c55b9cab33346938ca557',
  turbo: 'f4736be4c670582da393bfb668093d246865ddbc99898a19160c619cbdc73e54',
} as const;

export function vectorPath(name: string): string {
  return join(FOLDER ?? '', name);
}

export function vectorBytes(name: string): Buffer {
  return readFileSync(vectorPath(name));
}

/** The content of an .xz vector, through the xz program. */
export function unxzVector(name: string): Buffer {
  return execFileSync('xz', ['-dc', vectorPath(name)], { maxBuffer: 64 << 20 });
}

/** For node:test's `skip`: why .xz vectors cannot be used, or false. */
export function xzMissing(): string | false {
  try {
    execFileSync('xz', ['--version'], { stdio: 'ignore' });
    return vectorsMissing;
  } catch {
    return 'the xz program is not installed';
  }
}

/** sha256 of all bytes of a disk. */
export async function sha256OfDisk(disk: VirtualDisk): Promise<string> {
  const hash = createHash('sha256');
  const data = Buffer.alloc(1 << 20);
  const zeroes = Buffer.alloc(data.length);
  for (let at = 0; at < disk.sizeBytes; ) {
    const extent = disk.extentAt(at, Math.min(data.length, disk.sizeBytes - at));
    const length = Math.abs(extent);
    const part = data.subarray(0, length);
    if (extent > 0) await readFully(disk, part, at);
    hash.update(extent > 0 ? part : zeroes.subarray(0, length));
    at += length;
  }
  return hash.digest('hex');
}

function folder(): string | undefined {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  const found = join(root, '..', 'shared', 'vectors');
  return existsSync(found) ? found : undefined;
}
