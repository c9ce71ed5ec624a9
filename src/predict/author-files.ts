/**
 * Files that the author of the image wrote for this program: those that its arguments name, and what lies next to them and in
 * the working directory. Small in nearly every image, and nearly all of them are read.
 */
import { dirname } from 'node:path';
import type { ImageFile } from './image-files.js';
import { absolutePath, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

/** Larger files next to the program count only if an argument names them. */
const FILE_BYTES_MAX = 256 << 10;
const FILES_MAX = 64;
const DEPTH_MAX = 3;
/** Directories of packages, which other rules follow, and of the system, which no author made. */
const NO_AUTHORS = /\/(?:node_modules|site-packages|dist-packages|vendor|\.git|__pycache__)$/;
const SYSTEM = /^\/(?:$|bin|boot|dev|etc|lib\w*|proc|root|run|sbin|sys|tmp|usr|var)(?:\/|$)/;
/** Files that tools for building and people read. */
const NOT_AT_START =
  /^(?:.*lock\.(?:json|yaml)|.*\.lock|.*\.(?:md|map|d\.ts)|Dockerfile|LICEN[CS]E.*)$/i;
/** Directories of the system where authors put content. */
const CONTENT =
  /^\/(?:usr\/src\/|usr\/share\/nginx\/|var\/www(?:\/|$)|usr\/local\/(?:app|apache2\/htdocs))/;

export const AUTHOR_FILES: Rule = {
  name: 'author',
  async apply(program, finds) {
    const directories = new Set<string>(program.depth === 0 ? [program.cwd] : []);
    for (const arg of program.argv.slice(1)) {
      const found = await namedBy(arg, program, finds);
      if (found === undefined) continue;
      if (found.kind === 'file') finds.add(found, `argument of ${program.argv[0]}`);
      directories.add(found.kind === 'directory' ? found.path : dirname(found.path));
    }
    for (const directory of directories) await addBelow(directory, finds);
  },
};

/** The file or directory that an argument names, also in the form `--option=path`. */
async function namedBy(
  arg: string,
  { cwd }: Program,
  finds: Finds,
): Promise<ImageFile | undefined> {
  const path = /^--?[\w-]+=(.+)$/s.exec(arg)?.[1] ?? arg;
  return path.startsWith('-') ? undefined : await finds.image.find(absolutePath(path, cwd));
}

/** The small files of a directory, nearest first. */
async function addBelow(root: string, finds: Finds): Promise<void> {
  if (SYSTEM.test(root) && !CONTENT.test(root)) return;
  let level = [root];
  let left = FILES_MAX;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const below: string[] = [];
    for (const directory of level) {
      for (const name of await finds.image.list(directory)) {
        const found = left > 0 ? await finds.image.find(`${directory}/${name}`) : undefined;
        if (found === undefined || !found.path.startsWith(`${root}/`)) continue;
        if (found.kind === 'directory' && !NO_AUTHORS.test(found.path)) below.push(found.path);
        const isSmallFile = found.kind === 'file' && found.sizeBytes <= FILE_BYTES_MAX;
        if (!isSmallFile || NOT_AT_START.test(name)) continue;
        left--;
        finds.add(found, `in ${directory}`, { tier: depth === 0 ? 1 : 2 });
      }
    }
    level = below;
  }
}
