/**
 * What a start has to read and prints, found without any of the ways: the workload's command in the unpacked plain image,
 * on an ext4 without read-ahead. Made once for each image and kept in the cache directory.
 *
 * The pages of the files that were read, compressed as one stream, are the least that a lazy start can fetch.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { constants as zlib, zstdCompressSync } from 'node:zlib';
import { run } from '../programs.js';
import { compiled } from './compiled.js';
import { cacheFolder } from './folders.js';
import { repositoryOf } from './image-store.js';
import type { Workload } from './workloads.js';

const TOUCHED_BYTES_MAX = 2 ** 30;
const LEVEL = 3;
/** Of the disk that the image is unpacked to. */
const DISK_BYTES = 8 * 2 ** 30;

export interface Reference {
  readonly output: string;
  /** Of the pages that the start touches. */
  readonly touchedBytes: number;
  /** The same as one zstd stream. */
  readonly zstdBytes: number;
  /** Those with such pages, as absolute paths in the image. */
  readonly files: readonly string[];
}

export async function referenceOf(workload: Workload): Promise<Reference> {
  const folder = join(cacheFolder(), 'references');
  const program = basename(await compiled('touched-pages'));
  const key = createHash('sha256')
    .update(JSON.stringify([await repositoryOf(workload), workload.command, program]))
    .digest('hex')
    .slice(0, 16);
  const path = join(folder, `${workload.name}-${key}.json`);
  if (existsSync(path)) return JSON.parse(await readFile(path, 'utf8')) as Reference;
  await mkdir(folder, { recursive: true });
  const reference = await makeReference(workload);
  await writeFile(`${path}.partial`, JSON.stringify(reference));
  await rename(`${path}.partial`, path);
  return reference;
}

async function makeReference(workload: Workload): Promise<Reference> {
  const work = await mkdtemp('/var/tmp/obdcs.');
  const undo: (() => Promise<unknown>)[] = [() => rm(work, { recursive: true })];
  try {
    const bundle = join(work, 'bundle');
    await run('umoci', ['unpack', '--image', await workload.source(), bundle]);
    const disk = join(work, 'disk');
    await writeFile(disk, '');
    await truncate(disk, DISK_BYTES);
    const format = ['-q', '-F', '-O', '^has_journal', '-d', join(bundle, 'rootfs'), disk];
    await run('mkfs.ext4', format);
    const device = (await run('losetup', ['--find', '--show', '--read-only', disk])).trim();
    undo.push(() => run('losetup', ['--detach', device]));
    await run('blockdev', ['--setra', '0', device]);
    const [lower, writable, root] = ['lower', 'writable', 'root'].map((name) => join(work, name));
    for (const path of [lower!, writable!, root!]) await mkdir(path);
    await run('mount', ['-o', 'ro,noatime', device, lower!]);
    undo.push(() => run('umount', [lower!]));
    await run('mount', ['-t', 'tmpfs', 'tmpfs', writable!]);
    undo.push(() => run('umount', [writable!]));
    for (const name of ['upper', 'work']) await mkdir(join(writable!, name));
    const layers = `lowerdir=${lower},upperdir=${writable}/upper,workdir=${writable}/work`;
    await run('mount', ['-t', 'overlay', '-o', layers, 'overlay', root!]);
    undo.push(() => run('umount', [root!]));
    const output = await run('unshare', [
      ...['--mount', '--pid', '--net', '--fork', '--kill-child', 'sh', '-c'],
      'ip link set dev lo up; mount -t proc proc "$1/proc"; mount --bind /dev "$1/dev"; shift; exec "$@"',
      ...['start', root!, 'chroot', root!, '/usr/bin/env', '-i'],
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      ...workload.command,
    ]);
    const touched = await promisify(execFile)(await compiled('touched-pages'), [lower!], {
      encoding: 'buffer',
      maxBuffer: TOUCHED_BYTES_MAX,
    });
    const pages = touched.stdout;
    const params = { [zlib.ZSTD_c_compressionLevel]: LEVEL };
    return {
      output,
      touchedBytes: pages.length,
      zstdBytes: zstdCompressSync(pages, { params }).length,
      files: touched.stderr.toString().trim().split('\n'),
    };
  } finally {
    for (const step of undo.reverse()) await step();
  }
}
