/**
 * ELF programs and the libraries that they load.
 *
 * The parts that the loader reads before the first instruction are certain, and nearly all of their pages are read. Some 30 % of
 * the instructions are read, anywhere in them, so they come after all that is certain; symbols for debuggers and tables for
 * exceptions never come.
 */
import { type ElfFile, readElf } from './elf-file.js';
import type { ImageFile } from './image-files.js';
import { findLibrary } from './library-search.js';
import { bytesOf } from './prediction.js';
import type { Program } from './program.js';
import type { Finds, Rule } from './rule.js';

/** The instructions of a larger library are mostly those of other programs: 0.05 of 19.7 MB of openblas were read. */
const LIKELY_LIBRARY_BYTES_MAX = 8 << 20;
/** Larger tables are read in a few places only, which nothing tells: 1.3 of 30 MB of ICU's, 6.3 of 52 MB of node's. */
const CONSTANTS_BYTES_MAX = 16 << 20;
/** Where there are more, most of it is of no use at a start. */
const LIBRARIES_MAX = 400;
/** Read by OpenSSL when it is loaded. */
const CRYPTO_LIBRARY = /\/libcrypto\.so/;
const CRYPTO_SETTINGS = '/etc/ssl/openssl.cnf';

export const ELF_PROGRAM: Rule = {
  name: 'elf',
  async apply(program, finds) {
    const elf = await readElf(finds.image, program.file);
    if (elf === undefined) return;
    addParts(program.file, elf, `program ${program.argv[0]}`, 2, finds);
    if (elf.interpreter !== undefined) {
      const linker = await finds.image.findFile(elf.interpreter);
      if (linker !== undefined) await finds.load(linker, 'dynamic linker', program);
    }
    await addNeeded({ file: program.file, elf }, program, elf, finds);
  },
};

/** Reports a library that a program loads while it runs, and those that the library needs. */
export async function loadLibrary(
  file: ImageFile,
  reason: string,
  program: Program,
  finds: Finds,
): Promise<void> {
  const elf = await readElf(finds.image, file);
  if (elf === undefined) return;
  await addLibrary(file, elf, reason, finds);
  await addNeeded({ file, elf }, program, await readElf(finds.image, program.file), finds);
}

interface Loaded {
  readonly file: ImageFile;
  readonly elf: ElfFile;
}

/** Breadth first, as the linker loads them. */
async function addNeeded(
  first: Loaded,
  program: Program,
  programElf: ElfFile | undefined,
  finds: Finds,
): Promise<void> {
  const seen = new Set([first.file.inode]);
  const queue = [first];
  for (let i = 0; i < queue.length && queue.length < LIBRARIES_MAX; i++) {
    const of = queue[i]!;
    for (const name of of.elf.needed) {
      const file = await findLibrary(name, of, { program, programElf }, finds.image);
      if (file === undefined || seen.has(file.inode)) continue;
      seen.add(file.inode);
      const elf = await readElf(finds.image, file);
      if (elf === undefined) continue;
      await addLibrary(file, elf, `${name}, needed by ${of.file.path}`, finds);
      queue.push({ file, elf });
    }
  }
}

async function addLibrary(
  file: ImageFile,
  elf: ElfFile,
  reason: string,
  finds: Finds,
): Promise<void> {
  addParts(file, elf, reason, file.sizeBytes <= LIKELY_LIBRARY_BYTES_MAX ? 2 : 3, finds);
  const settings = CRYPTO_LIBRARY.test(file.path)
    ? await finds.image.findFile(CRYPTO_SETTINGS)
    : undefined;
  if (settings !== undefined) finds.add(settings, `settings of ${file.path}`);
}

function addParts(
  file: ImageFile,
  { certain, text, constants }: ElfFile,
  reason: string,
  textTier: 2 | 3,
  finds: Finds,
): void {
  finds.add(file, reason, { ranges: certain });
  const more = bytesOf(constants) <= CONSTANTS_BYTES_MAX ? constants : [];
  finds.add(file, `${reason}: code`, { tier: textTier, ranges: [...text, ...more] });
}
