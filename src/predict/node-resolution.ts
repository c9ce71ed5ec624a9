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

/** Finds modules in one image. */
export class NodeResolution {
  readonly #image: ImageFiles;

  constructor(image: ImageFiles) {
    this.#image = image;
  }

  /** Undefined for a built-in module, and for what is not there. */
  async module({ name, isImport }: RequiredName, from: ImageFile): Promise<Resolved | undefined> {
    if (name.startsWith('node:')) return undefined;
    if (/^\.{0,2}\//.test(name) || name === '.' || name === '..') {
      return await this.path(absolutePath(name, dirname(from.path)));
    }
    if (name.startsWith('#')) {
      const own = await this.packageAround(from);
      const paths =
        own === undefined
          ? []
          : this.#targets(own, () => importsOf(own.json, name, conditionsOf(isImport)));
      return own && (await this.#firstOf(paths, own));
    }
    const [, packageName, subpath = ''] = /^((?:@[^/]+\/)?[^/]+)(?:\/(.*))?$/.exec(name) ?? [];
    if (packageName === undefined) return undefined;
    let directory = dirname(from.path);
    for (let depth = 0; depth < DEPTH_MAX; depth++) {
      const at = `${directory === '/' ? '' : directory}/node_modules/${packageName}`;
      if ((await this.#image.find(at))?.kind === 'directory') {
        return await this.#in(at, subpath, isImport);
      }
      if (directory === '/') return undefined;
      directory = dirname(directory);
    }
    return undefined;
  }

  /** A path with its extensions, or a directory by its package.json or index. */
  async path(path: string): Promise<Resolved | undefined> {
    for (const extension of EXTENSIONS) {
      const file = await this.#image.findFile(`${path}${extension}`);
      if (file !== undefined) return { file, packages: [] };
    }
    if ((await this.#image.find(path))?.kind !== 'directory') return undefined;
    return await this.#in(path, '', false);
  }

  /** The package that a file belongs to, whose `type` says how Node.js reads the file. */
  async packageAround({ path }: ImageFile): Promise<Package | undefined> {
    let directory = dirname(path);
    for (let depth = 0; depth < DEPTH_MAX; depth++) {
      const found = await readPackage(directory, this.#image);
      if (found !== undefined) return found;
      if (directory === '/' || directory.endsWith('/node_modules')) return undefined;
      directory = dirname(directory);
    }
    return undefined;
  }

  async #in(directory: string, subpath: string, isImport: boolean): Promise<Resolved | undefined> {
    const found = await readPackage(directory, this.#image);
    if (found?.json['exports'] !== undefined) {
      const entry = subpath === '' ? '.' : `./${subpath}`;
      const paths = this.#targets(found, () =>
        exportsOf(found.json, entry, conditionsOf(isImport)),
      );
      return await this.#firstOf(paths, found);
    }
    const packages = found === undefined ? [] : [found];
    if (subpath !== '') {
      const resolved = await this.path(`${directory}/${subpath}`);
      return resolved && { file: resolved.file, packages: [...packages, ...resolved.packages] };
    }
    const main = found?.json.main;
    const paths = [...(main === undefined ? [] : [main, `${main}/index`]), 'index'];
    for (const path of paths) {
      for (const extension of EXTENSIONS) {
        const file = await this.#image.findFile(`${directory}/${path}${extension}`);
        if (file !== undefined) return { file, packages };
      }
    }
    return undefined;
  }

  async #firstOf(paths: readonly string[], found: Package): Promise<Resolved | undefined> {
    const file = await this.#image.firstFile(
      paths.map((path) => absolutePath(path, found.directory)),
    );
    return file && { file, packages: [found] };
  }

  /** The package throws where the name is not exported. */
  #targets({ file }: Package, find: () => unknown): string[] {
    // A search takes time in proportion, and a package may be searched for each of its names.
    this.#image.spend(Math.min(file.sizeBytes, PACKAGE_BYTES_MAX));
    if (this.#image.isExhausted) return [];
    try {
      return z.array(z.string()).catch([]).parse(find());
    } catch {
      return [];
    }
  }
}

/** The conditions of Node.js 22 and later, besides `node` and `default`. */
function conditionsOf(isImport: boolean) {
  return { require: !isImport, conditions: ['module-sync', 'node-addons'] };
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
