/** Perl: the modules that a script uses, and the libraries of those that are partly in C. */
import { directoriesWith } from './directory-stems.js';
import { filesMatching } from './glob-files.js';
import type { ImageFile, ImageFiles } from './image-files.js';
import { absolutePath, nameOf, type Program } from './program.js';
import { followRequired, type Required } from './required-files.js';
import type { Rule } from './rule.js';

const SOURCE_BYTES_MAX = 1 << 20;
const FILES_MAX = 1_000;
const NAMES_MAX = 500;
/** Patterns of the directories of @INC, in order: Debian's, and those of Perl's own images. */
const INC = [
  '/etc/perl',
  '/usr/local/lib/*/perl/*',
  '/usr/local/share/perl/*',
  '/usr/lib/*/perl5/*',
  '/usr/share/perl5',
  '/usr/lib/*/perl-base',
  '/usr/lib/*/perl/?.*',
  '/usr/share/perl/?.*',
  '/usr/local/lib/site_perl',
  '/usr/local/lib/perl5/site_perl/*/*-linux*',
  '/usr/local/lib/perl5/site_perl/*',
  '/usr/local/lib/perl5/?.*/*-linux*',
  '/usr/local/lib/perl5/?.*',
];
const USED = /(?:^|[;{}]) *(?:use|require) +([A-Za-z_][\w:]{0,200})([^;\n]{0,300})/gm;
/** Pragmas whose arguments are modules. */
const OF_MODULES = new Set(['parent', 'base']);

export const PERL: Rule = {
  name: 'perl',
  async apply(program, finds) {
    if (!/^perl(?:5[\d.]*)?$/.test(nameOf(program))) return;
    const { image } = finds;
    const inc = await incOf(program, image);
    const modulesOf = async (name: string, reason: string): Promise<Required[]> => {
      const path = name.replaceAll('::', '/');
      const module = await image.once(`perl ${path}`, async () => {
        const directories = await directoriesWith(path, inc, image);
        return await image.firstFile(directories.map((directory) => `${directory}/${path}.pm`));
      });
      if (module === undefined) return [];
      const last = path.slice(path.lastIndexOf('/') + 1);
      const library = await image.once(`perl ${path}.so`, async () => {
        const directories = await directoriesWith('auto', inc, image);
        return await image.firstFile(directories.map((each) => `${each}/auto/${path}/${last}.so`));
      });
      const found = library === undefined ? [module] : [module, library];
      return found.map((file) => ({ file, reason, tier: 1 }));
    };
    const requiredBy = async ({ path }: ImageFile, text: string) => {
      const found: Required[] = [];
      for (const name of usedNames(text)) found.push(...(await modulesOf(name, `used by ${path}`)));
      return found;
    };
    const first: Required[] = [];
    for (const [at, arg] of program.argv.entries()) {
      if (at === 0) continue;
      const [, module] = /^-[mM]-?([\w:]+)/.exec(arg) ?? [];
      if (module !== undefined) first.push(...(await modulesOf(module, arg)));
      if (/^-\w*[eE]$/.test(arg)) {
        for (const name of usedNames(program.argv[at + 1] ?? ''))
          first.push(...(await modulesOf(name, '-e')));
        break;
      }
      if (arg.startsWith('-')) continue;
      const file = await image.findFile(absolutePath(arg, program.cwd));
      if (file !== undefined) first.push({ file, reason: 'script of Perl', tier: 1 });
      break;
    }
    const language = { sourceBytesMax: SOURCE_BYTES_MAX, filesMax: FILES_MAX, requiredBy };
    await followRequired(first, language, program, finds);
  },
};

/** The modules that a text uses, without its documentation. */
function usedNames(text: string): string[] {
  const [code = ''] = text.split(/^__(?:END|DATA)__$/m, 1);
  const names = new Set<string>();
  for (const part of code.split(/^=cut\b.*$/m)) {
    const [before = ''] = part.split(/^=[a-zA-Z]/m, 1);
    for (const [, name = '', rest = ''] of before.matchAll(USED)) {
      if (names.size >= NAMES_MAX) break;
      names.add(name);
      if (!OF_MODULES.has(name)) continue;
      for (const [other] of rest.matchAll(/[A-Z]\w*(?:::\w+)*/g)) names.add(other);
    }
  }
  return [...names];
}

async function incOf({ argv, env, cwd }: Program, image: ImageFiles): Promise<string[]> {
  const given = (env.get('PERL5LIB') ?? '').split(':').filter((path) => path !== '');
  for (const [at, arg] of argv.entries()) {
    if (arg === '-I') given.push(argv[at + 1] ?? '');
    else if (arg.startsWith('-I')) given.push(arg.slice(2));
  }
  const paths = given.map((path) => absolutePath(path, cwd));
  for (const pattern of INC) paths.push(...(await filesMatching(pattern, '/', image)));
  return paths;
}
