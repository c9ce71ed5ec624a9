/**
 * Where the dynamic linker finds a library: ld.so(8) of glibc, and musl's. The cache of glibc is not read: it lists what is
 * in the directories of ld.so.conf, which are searched instead.
 */
import { dirname } from 'node:path';
import type { ElfFile } from './elf-file.js';
import { filesMatching } from './glob-files.js';
import type { ImageFile, ImageFiles } from './image-files.js';
import { absolutePath, type Program } from './program.js';

const CONFIG = '/etc/ld.so.conf';
const CONFIG_BYTES_MAX = 16 << 10;
/** Files that ld.so.conf includes. */
const CONFIGS_MAX = 64;
const DIRECTORIES_MAX = 64;

/** Finds the file of one name in DT_NEEDED of `of`, which `program` loads. */
export async function findLibrary(
  name: string,
  of: { readonly file: ImageFile; readonly elf: ElfFile },
  { program, programElf }: { readonly program: Program; readonly programElf: ElfFile | undefined },
  image: ImageFiles,
): Promise<ImageFile | undefined> {
  if (name.includes('/')) return await image.findFile(absolutePath(name, program.cwd));
  const { runpath, rpath, triplet } = of.elf;
  const from = (list: readonly string[], file: ImageFile) =>
    list.map((path) => path.replace(/\$(?:ORIGIN|\{ORIGIN\})/g, dirname(file.path)));
  const inherited = runpath.length > 0 ? [] : from(programElf?.rpath ?? [], program.file);
  const directories = [
    ...(runpath.length > 0 ? [] : from(rpath, of.file)),
    ...inherited,
    ...(program.env.get('LD_LIBRARY_PATH') ?? '').split(/[:;]/),
    ...from(runpath, of.file),
    ...(await image.once(CONFIG, () => readDirectories(image))),
    ...(triplet === undefined ? [] : [`/lib/${triplet}`, `/usr/lib/${triplet}`]),
    ...['/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib'],
  ];
  for (const directory of directories.filter((path) => path.startsWith('/'))) {
    const found = await image.findFile(`${directory}/${name}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function readDirectories(image: ImageFiles): Promise<readonly string[]> {
  const directories: string[] = [];
  const configs = [CONFIG];
  for (let i = 0; i < Math.min(configs.length, CONFIGS_MAX); i++) {
    const file = await image.findFile(configs[i]!);
    if (file === undefined) continue;
    for (const line of (await image.text(file, CONFIG_BYTES_MAX)).split('\n')) {
      const words = line
        .replace(/#.*/, '')
        .trim()
        .split(/[\s,:]+/);
      if (words[0] === 'include') {
        if (configs.length >= CONFIGS_MAX) break;
        for (const glob of words.slice(1))
          configs.push(...(await filesMatching(glob, '/etc', image)));
      } else directories.push(...words.filter((word) => word.startsWith('/')));
    }
  }
  return directories.slice(0, DIRECTORIES_MAX);
}
