/** Node.js: the files that a script requires and imports, with the package.json files by which they are found. */

import type { ImageFile } from './image-files.js';
import { NodeResolution, type Resolved } from './node-resolution.js';
import { requiredNames } from './node-source.js';
import { absolutePath, nameOf, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

/** Bundles of a whole application are larger, and require little. */
const SOURCE_BYTES_MAX = 4 << 20;
/** express requires 220. */
const FILES_MAX = 3_000;
/** Options that load one more module before the script. */
const PRELOAD = new Set(['-r', '--require', '--import']);
const VALUED_OPTIONS = new Set([
  ...PRELOAD,
  '-C',
  '--conditions',
  '--env-file',
  '--loader',
  '--title',
]);

export const NODE: Rule = {
  name: 'node',
  async apply(program, finds) {
    if (!/^(?:node|nodejs)$/.test(nameOf(program))) return;
    const { script, preloaded } = parseArguments(program);
    const closure = new Closure(program, finds);
    const here: ImageFile = { ...program.file, path: absolutePath('-', program.cwd) };
    for (const name of preloaded)
      await closure.add(await closure.resolution.module({ name, isImport: false }, here), '-r');
    if (script === undefined) return;
    const path = absolutePath(script, program.cwd);
    await closure.add(await closure.resolution.path(path), `script of Node.js`);
  },
};

function parseArguments({ argv, env }: Program) {
  const preloaded: string[] = [];
  const args = [...(env.get('NODE_OPTIONS') ?? '').split(' ').filter(Boolean), ...argv.slice(1)];
  for (let at = 0; at < args.length; at++) {
    const arg = args[at]!;
    const [, option, value] = /^(--\w+)=(.*)$/.exec(arg) ?? [];
    if (option !== undefined && PRELOAD.has(option)) preloaded.push(value!);
    if (PRELOAD.has(arg)) preloaded.push(args[at + 1] ?? '');
    if (/^-(?:e|p|-eval|-print)$/.test(arg)) return { preloaded, script: undefined };
    if (VALUED_OPTIONS.has(arg)) at++;
    else if (!arg.startsWith('-')) return { preloaded, script: arg };
  }
  return { preloaded, script: undefined };
}

class Closure {
  readonly resolution: NodeResolution;
  readonly #program: Program;
  readonly #finds: Finds;
  readonly #files = new Set<number>();

  constructor(program: Program, finds: Finds) {
    this.#program = program;
    this.#finds = finds;
    this.resolution = new NodeResolution(finds.image);
  }

  /** Depth first, without recursion, in the order in which Node.js runs the files. */
  async add(first: Resolved | undefined, reason: string): Promise<void> {
    const { image } = this.#finds;
    const open = first === undefined ? [] : [{ resolved: first, reason }];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      const { file, packages } = next.resolved;
      if (this.#files.has(file.inode) || this.#finds.isFull) continue;
      if (this.#files.size >= FILES_MAX) return;
      this.#files.add(file.inode);
      const around = await this.resolution.packageAround(file);
      for (const each of around === undefined ? packages : [...packages, around]) {
        this.#finds.add(each.file, `package of ${file.path}`);
      }
      if (file.path.endsWith('.node')) {
        await this.#finds.load(file, next.reason, this.#program);
        continue;
      }
      this.#finds.add(file, next.reason);
      if (file.path.endsWith('.json')) continue;
      const names = requiredNames(await image.text(file, SOURCE_BYTES_MAX));
      for (const required of names.reverse()) {
        const resolved = await this.resolution.module(required, file);
        if (resolved !== undefined) open.push({ resolved, reason: `required by ${file.path}` });
      }
    }
  }
}
