/** How Node.js finds the file of a name in `require()` or `import`: its documents "Modules" and "Packages". */
import { dirname } from 'node:path';
import { exports as exportsOf, imports as importsOf } from 'resolve.exports';
import * as z from 'zod';
import type { ImageFile, ImageFiles } from './image-files.js';
import type { RequiredName } from './node-source.js';
import { absolutePath } from './program.js';

const PACKAGE_BYTES_MAX = 256 << 10;
const EXTENSIONS = ['', '.js', '.json', '.node', '.mjs', '.cjs'] as const;
/** Directories above a file. */
const DEPTH_MAX = 32;

const packageSchema = z.looseObject({
  name: z.string().default(''),
  main: z.string().optional().catch(undefined),
  type: z.string().optional().catch(undefined),
});

export interface Package {
  readonly file: ImageFile;
  readonly directory: string;
  readonly json: z.infer<typeof packageSchema>;
}

export interface Resolved {
  readonly file: ImageFile;
  /** Every package.json that was read on the way. */
  readonly packages: readonly Package[];
}

/** Undefined for a built-in module, and for what is not there. */
export async function resolveModule(
  { name, isImport }: RequiredName,
  from: ImageFile,
  image: ImageFiles,
): Promise<Resolved | undefined> {
  if (name.startsWith('node:')) return undefined;
  if (/^\.{0,2}\//.test(name) || name === '.' || name === '..') {
    return await resolvePath(absolutePath(name, dirname(from.path)), image);
  }
  if (name.startsWith('#')) {
    const own = await packageAround(from, image);
    const paths =
      own === undefined ? [] : targets(() => importsOf(own.json, name, { require: !isImport }));
    return own && (await firstOf(paths, own, image));
  }
  const [, packageName, subpath = ''] = /^((?:@[^/]+\/)?[^/]+)(?:\/(.*))?$/.exec(name) ?? [];
  if (packageName === undefined) return undefined;
  let directory = dirname(from.path);
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const at = `${directory === '/' ? '' : directory}/node_modules/${packageName}`;
    if ((await image.find(at))?.kind === 'directory') {
      return await resolveIn(at, subpath, isImport, image);
    }
    if (directory === '/') return undefined;
    directory = dirname(directory);
  }
  return undefined;
}

/** A path with its extensions, or a directory by its package.json or index. */
export async function resolvePath(path: string, image: ImageFiles): Promise<Resolved | undefined> {
  for (const extension of EXTENSIONS) {
    const file = await image.findFile(`${path}${extension}`);
    if (file !== undefined) return { file, packages: [] };
  }
  if ((await image.find(path))?.kind !== 'directory') return undefined;
  return await resolveIn(path, '', false, image);
}

/** The package that a file belongs to, whose `type` says how Node.js reads the file. */
export async function packageAround(
  { path }: ImageFile,
  image: ImageFiles,
): Promise<Package | undefined> {
  let directory = dirname(path);
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const found = await readPackage(directory, image);
    if (found !== undefined) return found;
    if (directory === '/' || directory.endsWith('/node_modules')) return undefined;
    directory = dirname(directory);
  }
  return undefined;
}

async function resolveIn(
  directory: string,
  subpath: string,
  isImport: boolean,
  image: ImageFiles,
): Promise<Resolved | undefined> {
  const found = await readPackage(directory, image);
  if (found?.json['exports'] !== undefined) {
    const entry = subpath === '' ? '.' : `./${subpath}`;
    const paths = targets(() => exportsOf(found.json, entry, { require: !isImport }));
    return await firstOf(paths, found, image);
  }
  const packages = found === undefined ? [] : [found];
  if (subpath !== '') {
    const resolved = await resolvePath(`${directory}/${subpath}`, image);
    return resolved && { file: resolved.file, packages: [...packages, ...resolved.packages] };
  }
  const main = found?.json.main;
  const paths = [...(main === undefined ? [] : [main, `${main}/index`]), 'index'];
  for (const path of paths) {
    for (const extension of EXTENSIONS) {
      const file = await image.findFile(`${directory}/${path}${extension}`);
      if (file !== undefined) return { file, packages };
    }
  }
  return undefined;
}

async function firstOf(
  paths: readonly string[],
  found: Package,
  image: ImageFiles,
): Promise<Resolved | undefined> {
  const file = await image.firstFile(paths.map((path) => absolutePath(path, found.directory)));
  return file && { file, packages: [found] };
}

/** The package throws where the name is not exported. */
function targets(find: () => unknown): string[] {
  try {
    return z.array(z.string()).catch([]).parse(find());
  } catch {
    return [];
  }
}

function readPackage(directory: string, image: ImageFiles): Promise<Package | undefined> {
  return image.once(`package ${directory}`, async () => {
    const file = await image.findFile(`${directory}/package.json`);
    if (file === undefined) return undefined;
    try {
      const json = packageSchema.parse(JSON.parse(await image.text(file, PACKAGE_BYTES_MAX)));
      return { file, directory, json };
    } catch {
      // Node.js would fail on it too, so nothing behind it is read.
      return undefined;
    }
  });
}
