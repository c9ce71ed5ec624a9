/**
 * Python: the modules that a script imports, as their compiled files, and the extensions among them with their libraries.
 *
 * Followed are the imports that run when a module is imported, the entry point of an installed script, arguments of the form
 * `module:attribute`, and dotted names in constants of packages, by which frameworks name what they load later.
 */
import { dirname } from 'node:path';
import { directoriesWith } from './directory-stems.js';
import { filesMatching } from './glob-files.js';
import type { ImageFile, ImageFiles } from './image-files.js';
import type { Tier } from './prediction.js';
import { absolutePath, nameOf, type Program } from './program.js';
import { type PythonLayout, pythonLayout } from './python-layout.js';
import { type PythonSource, readPython } from './python-source.js';
import type { Finds, Rule } from './rule.js';

/** Larger modules are tables. */
const SOURCE_BYTES_MAX = 1 << 20;
const ENTRY_POINTS_BYTES_MAX = 64 << 10;
/** pandas imports 500. */
const MODULES_MAX = 2_000;
const PTH_BYTES_MAX = 16 << 10;
/** Lines of a .pth file may import, also by the function. */
const PTH_IMPORT = /(?:^import |__import__\(['"])([\w.]{1,100})/gm;
const NAME_PARTS_MAX = 16;
/** Imported by every interpreter before the script. */
const AT_START = ['encodings', 'encodings.aliases', 'encodings.utf_8', 'site', 'sitecustomize'];
/** Since 3.11 these are part of the interpreter; their sources only tell what they import. */
const FROZEN = new Set(
  'abc codecs io _collections_abc _sitebuiltins genericpath ntpath posixpath os site stat importlib.util importlib.machinery importlib._bootstrap importlib._bootstrap_external zipimport runpy'.split(
    ' ',
  ),
);
const FROZEN_SINCE_MINOR = 11;
/** Variables by which frameworks find the application. */
const NAMING_VARIABLES = ['DJANGO_SETTINGS_MODULE', 'FLASK_APP'];
/** Options with a value that ends option parsing, or takes the next argument. */
const VALUED_OPTIONS = new Set(['-W', '-X', '--check-hash-based-pycs']);

export const PYTHON: Rule = {
  name: 'python',
  async apply(program, finds) {
    if (!/^python(?:3(?:\.\d{1,2})?)?$/.test(nameOf(program))) return;
    const layout = await pythonLayout(program, finds.image);
    if (layout === undefined) return;
    const { script, module, code, args } = parseArguments(program.argv.slice(1));
    const scriptPath = script === undefined ? undefined : absolutePath(script, program.cwd);
    const scriptFile = scriptPath && (await finds.image.findFile(scriptPath));
    const first = scriptFile ? dirname(scriptFile.path) : program.cwd;
    const modules = new Modules(program, layout, finds, first);
    for (const path of layout.pthFiles) {
      const file = await finds.image.findFile(path);
      if (file === undefined) continue;
      finds.add(file, 'read by site');
      const text = await finds.image.text(file, PTH_BYTES_MAX);
      for (const [, name = ''] of text.matchAll(PTH_IMPORT)) await modules.import(name, path, 1);
    }
    for (const name of AT_START) await modules.import(name, 'start of Python', 1);
    if (module !== undefined) await modules.runModule(module);
    if (code !== undefined) await modules.follow(readPython(code, true), '', '-c', 1);
    if (scriptFile) await modules.runScript(scriptFile);
    for (const arg of args) {
      const [, named] = /^([A-Za-z_][\w.]*):[A-Za-z_][\w.]*(?:\(\))?$/.exec(arg) ?? [];
      if (named !== undefined) await modules.import(named, `argument ${arg}`, 1);
    }
    for (const variable of NAMING_VARIABLES) {
      const [name = ''] = (program.env.get(variable) ?? '').split(':');
      if (/^\w+(?:\.\w+)*$/.test(name)) await modules.import(name, `named by ${variable}`, 1);
    }
    await modules.followConstants();
  },
};

interface PythonArguments {
  readonly script?: string;
  readonly module?: string;
  readonly code?: string;
  readonly args: readonly string[];
}

function parseArguments(argv: readonly string[]): PythonArguments {
  for (let at = 0; at < argv.length; at++) {
    const arg = argv[at]!;
    const rest = argv.slice(at + 1);
    if (/^-[a-zA-Z]*m$/.test(arg)) return { module: rest[0] ?? '', args: rest.slice(1) };
    if (/^-[a-zA-Z]*c$/.test(arg)) return { code: rest[0] ?? '', args: rest.slice(1) };
    if (VALUED_OPTIONS.has(arg)) at++;
    else if (!arg.startsWith('-')) return { script: arg, args: rest };
  }
  return { args: [] };
}

/** A module whose file is known. */
interface Found {
  readonly source: ImageFile | undefined;
  /** Where it was found; a symlink's compiled file is next to the link. */
  readonly path: string;
  /** Of a package; its modules are searched there. */
  readonly directory: string | undefined;
}

class Modules {
  readonly #program: Program;
  readonly #layout: PythonLayout;
  readonly #finds: Finds;
  readonly #paths: readonly string[];
  readonly #modules = new Map<string, Found | undefined>();
  #found = 0;
  /** Constants of packages, to be followed last. */
  readonly #constants = new Set<string>();
  /** Constants of the application. */
  readonly #ownConstants = new Set<string>();

  constructor(program: Program, layout: PythonLayout, finds: Finds, first: string) {
    this.#program = program;
    this.#layout = layout;
    this.#finds = finds;
    // Servers add the working directory.
    this.#paths = [first, ...layout.paths, ...(first === program.cwd ? [] : [program.cwd])];
  }

  get #image(): ImageFiles {
    return this.#finds.image;
  }

  /** `python -m`. */
  async runModule(name: string): Promise<void> {
    const found = await this.import(name, `-m ${name}`, 1);
    if (found?.directory !== undefined) await this.import(`${name}.__main__`, `-m ${name}`, 1);
  }

  async runScript(file: ImageFile): Promise<void> {
    this.#finds.add(file, 'script of Python');
    const text = await this.#image.text(file, SOURCE_BYTES_MAX);
    const parsed = readPython(text, true);
    for (const each of parsed.dotted) this.#ownConstants.add(each);
    await this.follow(parsed, '', file.path, 1);
    const [, distribution, name] =
      /load_entry_point\(\s*['"]([\w.-]+)[^'"]*['"],\s*['"]console_scripts['"],\s*['"]([\w.-]+)['"]/.exec(
        text,
      ) ?? [];
    if (distribution !== undefined && name !== undefined)
      await this.#entryPoint(distribution, name);
  }

  /** Imports a module and what is above it. */
  async import(name: string, reason: string, tier: Tier): Promise<Found | undefined> {
    const parts = name.split('.');
    if (parts.length > NAME_PARTS_MAX || parts.includes('')) return undefined;
    let found: Found | undefined;
    for (let length = 1; length <= parts.length; length++) {
      const each = parts.slice(0, length).join('.');
      const paths =
        length === 1 ? this.#paths : found?.directory === undefined ? [] : [found.directory];
      found = this.#modules.has(each)
        ? this.#modules.get(each)
        : await this.#load(each, parts[length - 1]!, paths, reason, tier);
      if (found === undefined) return await this.#vendored(name, reason, tier);
    }
    return found;
  }

  /** setuptools imports its own copies of packages as `NAME.extern.PACKAGE`; they are in `NAME._vendor`. */
  async #vendored(name: string, reason: string, tier: Tier): Promise<Found | undefined> {
    if (!name.includes('.extern.')) return undefined;
    return await this.import(name.replace('.extern.', '._vendor.'), reason, tier);
  }

  async follow(
    { imports }: PythonSource,
    packageName: string,
    from: string,
    tier: Tier,
  ): Promise<void> {
    for (const { module, names } of imports) {
      const name = absoluteName(module, packageName);
      if (name === undefined) continue;
      const found = name === '' ? undefined : await this.import(name, `imported by ${from}`, tier);
      if (found?.directory === undefined) continue;
      for (const each of names) await this.import(`${name}.${each}`, `imported by ${from}`, tier);
    }
  }

  /** Names in packages count if their first part was imported, names of the application if they lead to a module. */
  async followConstants(): Promise<void> {
    // The sets grow while they are iterated.
    for (const constants of [this.#ownConstants, this.#constants, this.#ownConstants]) {
      for (const constant of constants) {
        const [name = ''] = constant.split(':');
        const isOwn = constants === this.#ownConstants;
        if (!isOwn && !this.#modules.get(name.split('.', 1)[0]!)) continue;
        await this.import(name, `named by a constant, "${constant}"`, 2);
      }
    }
  }

  async #load(name: string, last: string, paths: readonly string[], reason: string, tier: Tier) {
    if (this.#found >= MODULES_MAX || this.#finds.isFull || this.#image.isExhausted)
      return undefined;
    this.#modules.set(name, undefined);
    const found = await this.#locate(last, paths);
    if (found === undefined) return undefined;
    this.#modules.set(name, found);
    this.#found++;
    const { source, directory } = found;
    if (source === undefined) return found;
    if (source.path.endsWith('.so')) {
      await this.#finds.load(source, reason, this.#program);
      return found;
    }
    const isFrozen = this.#layout.minor >= FROZEN_SINCE_MINOR && FROZEN.has(name);
    if (!isFrozen) this.#finds.add((await this.#compiled(found.path)) ?? source, reason, { tier });
    const parsed = readPython(await this.#image.text(source, SOURCE_BYTES_MAX), false);
    const isStandard = source.path.startsWith(`${this.#layout.standard}/`);
    const isPackaged = this.#layout.sites.some((site) => source.path.startsWith(`${site}/`));
    const constants = isPackaged ? this.#constants : isStandard ? undefined : this.#ownConstants;
    for (const each of parsed.dotted) constants?.add(each);
    const packageName =
      directory === undefined ? name.slice(0, Math.max(0, name.lastIndexOf('.'))) : name;
    await this.follow(parsed, packageName, name, tier);
    return found;
  }

  /** In the order of Python's finder: package, extension, source. */
  async #locate(name: string, paths: readonly string[]): Promise<Found | undefined> {
    for (const path of await directoriesWith(name, paths, this.#image)) {
      const directory = `${path}/${name}`;
      const init = await this.#image.findFile(`${directory}/__init__.py`);
      if (init !== undefined) return { source: init, path: `${directory}/__init__.py`, directory };
      for (const suffix of await this.#extensionSuffixes()) {
        const at = `${path}/${name}${suffix}`;
        const extension = await this.#image.findFile(at);
        if (extension !== undefined) return { source: extension, path: at, directory: undefined };
      }
      const source = await this.#image.findFile(`${path}/${name}.py`);
      if (source !== undefined) {
        return { source, path: `${path}/${name}.py`, directory: undefined };
      }
      // A namespace package; the finder would go on and prefer a regular one.
      if ((await this.#image.find(directory))?.kind === 'directory')
        return { source: undefined, path: directory, directory };
    }
    return undefined;
  }

  /** `.cpython-311-x86_64-linux-gnu.so` and the like, as the extensions of the standard library have it. */
  #extensionSuffixes(): Promise<readonly string[]> {
    const { standard, tag } = this.#layout;
    return this.#image.once(`python ${standard}`, async () => {
      const names = await this.#image.list(`${standard}/lib-dynload`);
      const suffixes = new Set(names.flatMap((name) => /\.cpython-[\w-]+\.so$/.exec(name) ?? []));
      return [...[...suffixes].filter((suffix) => suffix.startsWith(`.${tag}`)), '.abi3.so', '.so'];
    });
  }

  async #compiled(path: string): Promise<ImageFile | undefined> {
    const slash = path.lastIndexOf('/');
    const stem = path.slice(slash + 1, -'.py'.length);
    return await this.#image.findFile(
      `${path.slice(0, slash)}/__pycache__/${stem}.${this.#layout.tag}.pyc`,
    );
  }

  /** The module that a distribution's metadata names for a script. */
  async #entryPoint(distribution: string, script: string): Promise<void> {
    for (const site of this.#layout.sites) {
      const found = [
        ...(await filesMatching(`${distribution}-*/entry_points.txt`, site, this.#image)),
        ...(await filesMatching(`${distribution}.egg-info/entry_points.txt`, site, this.#image)),
      ];
      for (const path of found) {
        const file = await this.#image.findFile(path);
        if (file === undefined) continue;
        this.#finds.add(file, `entry point of ${script}`);
        for (const line of (await this.#image.text(file, ENTRY_POINTS_BYTES_MAX)).split('\n')) {
          const [, name, module] = /^\s*([\w.-]+)\s*=\s*([\w.]+)/.exec(line) ?? [];
          if (name === script && module !== undefined) {
            await this.import(module, `entry point of ${script}`, 1);
          }
        }
      }
    }
  }
}

/** The full name of an imported module; undefined if it is above the top. */
function absoluteName(module: string, packageName: string): string | undefined {
  const dots = /^\.*/.exec(module)![0].length;
  if (dots === 0) return module;
  const above = packageName === '' ? [] : packageName.split('.');
  if (dots > above.length) return undefined;
  const base = above.slice(0, above.length - dots + 1).join('.');
  const rest = module.slice(dots);
  return rest === '' ? base : `${base}.${rest}`;
}
