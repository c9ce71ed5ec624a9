/**
 * Ruby: the files that a script requires, and the specifications of all installed gems, which RubyGems reads at each start.
 */
import { dirname } from 'node:path';
import { directoriesWith } from './directory-stems.js';
import { filesMatching } from './glob-files.js';
import type { ImageFile, ImageFiles } from './image-files.js';
import { absolutePath, nameOf, type Program } from './program.js';
import { followRequired, type Required } from './required-files.js';
import type { Rule } from './rule.js';

const SOURCE_BYTES_MAX = 1 << 20;
const FILES_MAX = 2_000;
const NAMES_MAX = 500;
/** Patterns of the directories that `require` searches, in order: Debian's, and those of Ruby's own images. */
const LOAD_PATHS = [
  '/usr/local/lib/ruby/site_ruby/?.?.?',
  '/usr/local/lib/site_ruby',
  '/usr/lib/ruby/vendor_ruby/?.?.?',
  '/usr/lib/ruby/vendor_ruby',
  '/usr/lib/ruby/?.?.?',
  '/usr/lib/*/ruby/*',
  '/usr/local/lib/ruby/?.?.?',
  '/usr/local/lib/ruby/?.?.?/*-linux*',
];
const GEM_PATTERNS = [
  '/usr/local/bundle/gems/*/lib',
  '/usr/local/lib/ruby/gems/*/gems/*/lib',
  '/usr/share/rubygems-integration/*/gems/*/lib',
  '/var/lib/gems/*/gems/*/lib',
];
const SPECIFICATIONS = [
  '/usr/share/rubygems-integration/*/specifications/*.gemspec',
  '/usr/share/rubygems-integration/*/specifications/default/*.gemspec',
  '/usr/lib/ruby/gems/*/specifications/default/*.gemspec',
  '/usr/lib/ruby/gems/*/specifications/*.gemspec',
  '/var/lib/gems/*/specifications/*.gemspec',
  '/usr/local/bundle/specifications/*.gemspec',
  '/usr/local/lib/ruby/gems/*/specifications/default/*.gemspec',
  '/usr/local/lib/ruby/gems/*/specifications/*.gemspec',
];
/** Loaded before the script. */
const AT_START = [
  'enc/encdb',
  'enc/trans/transdb',
  'rubygems',
  'monitor',
  'error_highlight',
  'did_you_mean',
  'syntax_suggest/core_ext',
];
const REQUIRED =
  /^([ \t]*)(require|require_relative|autoload ?\(? ?:\w{1,80},) *\(?(File\.join\(__dir__, ?)?["']([\w./-]{1,200})["']/gm;
/** Deeper ones are in methods, which run later or never. */
const INDENT_MAX = 3;
/** Of gems. */
const SPECIFICATIONS_MAX = 300;

export const RUBY: Rule = {
  name: 'ruby',
  async apply(program, finds) {
    if (!/^ruby(?:\d(?:\.\d)?)?$/.test(nameOf(program))) return;
    const { image } = finds;
    const search = await loadPaths(program, image);
    for (const pattern of SPECIFICATIONS) {
      for (const path of await filesMatching(pattern, '/', image, SPECIFICATIONS_MAX)) {
        const file = await image.findFile(path);
        if (file !== undefined) finds.add(file, 'specification of a gem');
      }
    }
    const first: Required[] = [];
    const resolve = (name: string) =>
      image.once(`ruby ${name}`, async () =>
        image.firstFile(candidates(name, await directoriesWith(name, search, image))),
      );
    for (const name of AT_START) {
      const file = await resolve(name);
      if (file !== undefined) first.push({ file, reason: 'start of Ruby', tier: 1 });
    }
    for (const name of program.argv.slice(1)) {
      const file = name.startsWith('-')
        ? undefined
        : await image.findFile(absolutePath(name, program.cwd));
      if (file === undefined) continue;
      first.push({ file, reason: 'script of Ruby', tier: 1 });
      break;
    }
    const requiredBy = async ({ path }: ImageFile, text: string) => {
      const found: Required[] = [];
      const [code = ''] = text.split(/^__END__$/m, 1);
      for (const [, indent = '', word = '', join, name = ''] of code.matchAll(REQUIRED)) {
        if (found.length >= NAMES_MAX) break;
        const isRelative =
          word === 'require_relative' || join !== undefined || /^\.{0,2}\//.test(name);
        const file = isRelative
          ? await image.firstFile(candidates(absolutePath(name, dirname(path)), ['']))
          : await resolve(name);
        const isLate = word.startsWith('autoload') || indent.length > INDENT_MAX;
        const tier = isLate ? 2 : 1;
        if (file !== undefined) found.push({ file, reason: `required by ${path}`, tier });
      }
      return found;
    };
    const language = { sourceBytesMax: SOURCE_BYTES_MAX, filesMax: FILES_MAX, requiredBy };
    await followRequired(first, language, program, finds);
  },
};

function* candidates(name: string, directories: readonly string[]): Generator<string> {
  const endings = /\.(?:rb|so)$/.test(name) ? [''] : ['.rb', '.so'];
  for (const directory of directories) {
    for (const ending of endings)
      yield directory === '' ? `${name}${ending}` : `${directory}/${name}${ending}`;
  }
}

async function loadPaths({ argv, env, cwd }: Program, image: ImageFiles): Promise<string[]> {
  const given = (env.get('RUBYLIB') ?? '').split(':').filter((path) => path !== '');
  for (const [at, arg] of argv.entries()) {
    if (arg === '-I') given.push(argv[at + 1] ?? '');
    else if (arg.startsWith('-I')) given.push(arg.slice(2));
  }
  const paths = given.map((path) => absolutePath(path, cwd));
  for (const pattern of [...LOAD_PATHS, ...GEM_PATTERNS]) {
    paths.push(...(await filesMatching(pattern, '/', image)));
  }
  return paths;
}
