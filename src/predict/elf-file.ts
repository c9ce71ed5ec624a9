/**
 * The parts of an ELF file that its loader uses: which bytes are read when, and which libraries it needs.
 *
 * Sizes and offsets that a file states are bounded before anything is read, so a forged file costs no more than a real one.
 * 64-bit and little-endian only: the machines of container images. (System V ABI, chapters 4 and 5.)
 */
import type { ImageFile, ImageFiles } from './image-files.js';
import type { ByteRange } from './prediction.js';

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const SECTION_HEADER_BYTES = 64;
/** Real files have up to 15, and 50 sections. */
const PROGRAM_HEADERS_MAX = 64;
const SECTIONS_MAX = 512;
const SECTION_NAMES_BYTES_MAX = 64 << 10;
const DYNAMIC_BYTES_MAX = 32 << 10;
const INTERPRETER_BYTES_MAX = 4096;
/** The longest string is a list of directories, RPATH. */
const STRING_BYTES_MAX = 4096;
/** libreoffice needs 90. */
const NEEDED_MAX = 256;
/** An executable's symbols are looked up by its libraries, a few pages of them; a table beyond that is mostly unread. */
const SYMBOLS_BYTES_MAX = 1 << 20;

const LOAD = 1;
const DYNAMIC = 2;
const INTERPRETER = 3;
const FLAG_EXECUTE = 1;
const FLAG_WRITE = 2;
const TAG = { needed: 1, strtab: 5, rpath: 15, runpath: 29 };
const SHF_WRITE = 1;
const SHF_ALLOC = 2;
const SHF_EXECINSTR = 4;
const SHT_NOBITS = 8;
/** e_machine -> Debian's name, part of library directories. */
const TRIPLETS = new Map([
  [62, 'x86_64-linux-gnu'],
  [183, 'aarch64-linux-gnu'],
  [243, 'riscv64-linux-gnu'],
  [258, 'loongarch64-linux-gnu'],
  [21, 'powerpc64le-linux-gnu'],
]);
const SYMBOL_SECTIONS = /^\.(?:dynsym|dynstr|hash|gnu\.hash|gnu\.version)$/;
/** Read by the unwinder only, when an exception is thrown. */
const UNWIND_SECTIONS = /^\.(?:eh_frame|eh_frame_hdr|gcc_except_table|debug_.*)$/;
const PLT_SECTIONS = /^\.plt/;

export interface ElfFile {
  /** Headers, dynamic section, symbols, relocations, plt, data: read before the program's first instruction. */
  readonly certain: readonly ByteRange[];
  /** Instructions. */
  readonly text: readonly ByteRange[];
  /** Constants. */
  readonly constants: readonly ByteRange[];
  /** Path of the dynamic linker; undefined for libraries and static programs. */
  readonly interpreter: string | undefined;
  /** File names of the libraries that it needs. */
  readonly needed: readonly string[];
  /** Directories to search for them, `$ORIGIN` not yet replaced. */
  readonly rpath: readonly string[];
  readonly runpath: readonly string[];
  readonly triplet: string | undefined;
}

interface Segment {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly fileBytes: number;
}

interface Section {
  readonly name: string;
  readonly flags: number;
  readonly range: ByteRange;
}

/** Undefined if it is no ELF file, or not one that this reader handles. */
export function readElf(image: ImageFiles, file: ImageFile): Promise<ElfFile | undefined> {
  return image.once(`elf ${file.inode}`, () => parse(image, file));
}

async function parse(image: ImageFiles, file: ImageFile): Promise<ElfFile | undefined> {
  const header = await image.read(file, 0, HEADER_BYTES);
  const isElf64 = header.length === HEADER_BYTES && header.readUInt32BE(0) === 0x7f454c46;
  if (!isElf64 || header[4] !== 2 || header[5] !== 1) return undefined;
  const segments = await readSegments(image, file, header);
  if (segments.length === 0) return undefined;
  const sections = await readSections(image, file, header);
  const parts = sections.length > 0 ? partsOfSections(sections) : partsOfSegments(segments);
  const headers = { start: 0, end: Math.min(file.sizeBytes, endOfHeaders(header)) };
  const clip = (range: ByteRange) => clipped(range, file.sizeBytes);
  return {
    certain: [headers, ...parts.certain].flatMap(clip),
    text: parts.text.flatMap(clip),
    constants: parts.constants.flatMap(clip),
    interpreter: await readInterpreter(image, file, segments),
    ...(await readDynamic(image, file, segments)),
    triplet: TRIPLETS.get(header.readUInt16LE(18)),
  };
}

async function readSegments(
  image: ImageFiles,
  file: ImageFile,
  header: Buffer,
): Promise<Segment[]> {
  const count = header.readUInt16LE(56);
  if (header.readUInt16LE(54) !== PROGRAM_HEADER_BYTES || count > PROGRAM_HEADERS_MAX) return [];
  const table = await image.read(file, numberAt(header, 32), count * PROGRAM_HEADER_BYTES);
  return recordsOf(table, PROGRAM_HEADER_BYTES).map((record) => ({
    type: record.readUInt32LE(0),
    flags: record.readUInt32LE(4),
    offset: numberAt(record, 8),
    address: numberAt(record, 16),
    fileBytes: numberAt(record, 32),
  }));
}

/** The sections that are in memory when it runs; none if the file was stripped of their table. */
async function readSections(
  image: ImageFiles,
  file: ImageFile,
  header: Buffer,
): Promise<Section[]> {
  const count = header.readUInt16LE(60);
  if (header.readUInt16LE(58) !== SECTION_HEADER_BYTES || count > SECTIONS_MAX) return [];
  const table = await image.read(file, numberAt(header, 40), count * SECTION_HEADER_BYTES);
  const records = recordsOf(table, SECTION_HEADER_BYTES);
  const namesRecord = records[header.readUInt16LE(62)];
  if (namesRecord === undefined) return [];
  const namesBytes = Math.min(numberAt(namesRecord, 32), SECTION_NAMES_BYTES_MAX);
  const names = await image.read(file, numberAt(namesRecord, 24), namesBytes);
  return records.flatMap((record) => {
    const flags = record.readUInt32LE(8);
    const start = numberAt(record, 24);
    const end = start + numberAt(record, 32);
    if ((flags & SHF_ALLOC) === 0 || record.readUInt32LE(4) === SHT_NOBITS) return [];
    return [{ name: stringAt(names, record.readUInt32LE(0)), flags, range: { start, end } }];
  });
}

function partsOfSections(sections: readonly Section[]) {
  const certain: ByteRange[] = [];
  const text: ByteRange[] = [];
  const constants: ByteRange[] = [];
  for (const { name, flags, range } of sections) {
    if (UNWIND_SECTIONS.test(name)) continue;
    const isLargeTable = SYMBOL_SECTIONS.test(name) && range.end - range.start > SYMBOLS_BYTES_MAX;
    if ((flags & SHF_WRITE) !== 0 || PLT_SECTIONS.test(name)) certain.push(range);
    else if ((flags & SHF_EXECINSTR) !== 0) text.push(range);
    else if (isLargeTable || /^\.(?:rodata|gopclntab)/.test(name)) constants.push(range);
    else certain.push(range);
  }
  return { certain, text, constants };
}

/** Coarser: constants and tables of one segment cannot be told apart, so all that is before the text counts as certain. */
function partsOfSegments(segments: readonly Segment[]) {
  const loads = segments.filter(({ type }) => type === LOAD);
  const isText = ({ flags }: Segment) => (flags & FLAG_EXECUTE) !== 0;
  const textAt = loads.findIndex(isText);
  const rangesOf = (which: (segment: Segment, i: number) => boolean): ByteRange[] =>
    loads
      .filter(which)
      .map(({ offset, fileBytes }) => ({ start: offset, end: offset + fileBytes }));
  const isCertain = ({ flags }: Segment, i: number) => (flags & FLAG_WRITE) !== 0 || i < textAt;
  return {
    certain: rangesOf((segment, i) => !isText(segment) && isCertain(segment, i)),
    text: rangesOf(isText),
    constants: rangesOf((segment, i) => !isText(segment) && !isCertain(segment, i)),
  };
}

async function readInterpreter(
  image: ImageFiles,
  file: ImageFile,
  segments: readonly Segment[],
): Promise<string | undefined> {
  const segment = segments.find(({ type }) => type === INTERPRETER);
  if (segment === undefined) return undefined;
  const length = Math.min(segment.fileBytes, INTERPRETER_BYTES_MAX);
  return stringAt(await image.read(file, segment.offset, length), 0);
}

async function readDynamic(image: ImageFiles, file: ImageFile, segments: readonly Segment[]) {
  const found = { needed: [] as string[], rpath: [] as string[], runpath: [] as string[] };
  const segment = segments.find(({ type }) => type === DYNAMIC);
  if (segment === undefined) return found;
  const length = Math.min(segment.fileBytes, DYNAMIC_BYTES_MAX);
  const entries = recordsOf(await image.read(file, segment.offset, length), 16).map((record) => ({
    tag: numberAt(record, 0),
    value: numberAt(record, 8),
  }));
  const strings = entries.find(({ tag }) => tag === TAG.strtab)?.value;
  const base = strings === undefined ? undefined : fileOffsetOf(strings, segments);
  if (base === undefined) return found;
  const text = async (at: number) =>
    stringAt(await image.read(file, base + at, STRING_BYTES_MAX), 0);
  for (const { tag, value } of entries) {
    if (tag === TAG.needed && found.needed.length < NEEDED_MAX) {
      found.needed.push(await text(value));
    } else if (tag === TAG.rpath) found.rpath = (await text(value)).split(':');
    else if (tag === TAG.runpath) found.runpath = (await text(value)).split(':');
  }
  return found;
}

function fileOffsetOf(address: number, segments: readonly Segment[]): number | undefined {
  const segment = segments.find(
    ({ type, address: start, fileBytes }) =>
      type === LOAD && address >= start && address < start + fileBytes,
  );
  return segment && segment.offset + address - segment.address;
}

/** The file header, and the program headers that usually follow it. */
function endOfHeaders(header: Buffer): number {
  return HEADER_BYTES + header.readUInt16LE(56) * PROGRAM_HEADER_BYTES;
}

function clipped({ start, end }: ByteRange, sizeBytes: number): ByteRange[] {
  return start < Math.min(end, sizeBytes) ? [{ start, end: Math.min(end, sizeBytes) }] : [];
}

function recordsOf(table: Buffer, length: number): Buffer[] {
  const count = Math.floor(table.length / length);
  return Array.from({ length: count }, (_, i) => table.subarray(i * length, (i + 1) * length));
}

/** A 64-bit number; a value that no file offset can have may lose its lowest bits. */
function numberAt(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64LE(at));
}

function stringAt(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString('utf8', at, end === -1 ? bytes.length : end);
}
