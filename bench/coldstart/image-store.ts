/**
 * The images of the benchmark in the cache directory: for each a docker-registry's storage folder with the plain image,
 * and further folders with what the ways need of it, such as the image that obdconv makes. Each is made once.
 */
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, utimes } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { LocalRegistry } from '../local-registry.js';
import { run } from '../programs.js';
import { cacheFolder } from './folders.js';
import type { Programs } from './peer-programs.js';
import type { Workload } from './workloads.js';

/** All images together; those used last are kept. */
const IMAGES_BYTES_MAX = 24 * 2 ** 30;

/** What a form of an image is made of and with. */
export interface Making {
  readonly workload: Workload;
  readonly programs: Programs;
}

/** A form of an image that a way pulls, under the tag of its name. */
export interface Variant {
  /** Without a dash, which ends it in the name of a folder. */
  readonly name: string;
  /** Of whatever makes it: another key, another image. */
  readonly key: (making: Making) => string | Promise<string>;
  /** Makes it of `REPOSITORY:plain` at a registry on loopback, as `REPOSITORY:NAME` there. */
  readonly make: (repository: string, making: Making) => Promise<unknown>;
}

/** The repository of a source in every registry. */
export async function repositoryOf(workload: Workload): Promise<string> {
  const layout = (await workload.source()).replace(/:[^:]*$/, '');
  return `bench/${basename(layout.replace(/\/layout$/, ''))}`;
}

/** @returns Storage folders to serve: together they have the plain image and the variants. */
export async function storedImages(
  making: Making,
  variants: readonly Variant[],
): Promise<string[]> {
  const { workload } = making;
  const source = await workload.source();
  const repository = await repositoryOf(workload);
  const home = join(cacheFolder(), 'images', basename(repository));
  await mkdir(home, { recursive: true });
  const plain = join(home, 'plain');
  await makeOnce(plain, undefined, async (host) => {
    const to = `docker://${host}/${repository}:plain`;
    const copy = ['--insecure-policy', 'copy', '--quiet', '--dest-tls-verify=false'];
    await run('skopeo', [...copy, `oci:${source}`, to]);
  });
  const folders = [plain];
  for (const variant of variants) {
    const folder = join(home, `${variant.name}-${await variant.key(making)}`);
    for (const name of readdirSync(home)) {
      const isOld = name.startsWith(`${variant.name}-`) && name !== basename(folder);
      if (isOld) await rm(join(home, name), { recursive: true });
    }
    await makeOnce(
      folder,
      plain,
      async (host) => await variant.make(`${host}/${repository}`, making),
    );
    folders.push(folder);
  }
  await utimes(home, new Date(), new Date());
  return folders;
}

/** Fills a storage folder through a registry, beginning with the images of another one. */
async function makeOnce(
  folder: string,
  base: string | undefined,
  fill: (host: string) => Promise<unknown>,
): Promise<void> {
  if (existsSync(folder)) return;
  const work = await mkdtemp(`${folder}.partial-`);
  try {
    if (base !== undefined) await run('cp', ['-al', base, join(work, 'registry')]);
    const registry = await LocalRegistry.start(work);
    try {
      await fill(registry.host);
    } finally {
      await registry.stop();
    }
    await rename(join(work, 'registry'), folder);
  } finally {
    await rm(work, { recursive: true });
  }
}

/** Removes the images that were used least recently, down to the limit. */
export async function trimImages(): Promise<void> {
  const images = join(cacheFolder(), 'images');
  const listed = await run('find', [
    images,
    '-mindepth',
    '1',
    '-maxdepth',
    '1',
    '-printf',
    '%T@ %p\n',
  ]);
  const oldest = listed.trim().split('\n').toSorted();
  for (const line of oldest) {
    const used = Number((await run('du', ['-sb', images])).split('\t')[0]);
    if (used <= IMAGES_BYTES_MAX) return;
    await rm(line.slice(line.indexOf(' ') + 1), { recursive: true });
  }
}
