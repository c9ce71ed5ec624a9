/** Small ELF files for tests of the predictor: 64-bit, little-endian, with the sections of real ones and no code. */

export interface ElfOptions {
  readonly interpreter?: string;
  readonly needed?: readonly string[];
  readonly rpath?: string;
  readonly runpath?: string;
  /** Bytes of .text, .rodata and .symtab. */
  readonly textBytes?: number;
  readonly constantBytes?: number;
  readonly symbolBytes?: number;
  /** Without the table of sections, as of a stripped file. */
  readonly withoutSections?: boolean;
}

interface Part {
  readonly name: string;
  readonly flags: number;
  readonly bytes: Buffer;
}

const PAGE_BYTES = 4096;
const WRITE = 1;
const ALLOCATED = 2;
const EXECUTABLE = 4;
const X86_64 = 62;

/** Parts begin at pages: headers, .dynstr, .interp, .dynamic, .text, .rodata, .eh_frame, .data, .symtab. */
export function elfBytes({
  interpreter,
  needed = [],
  rpath,
  runpath,
  textBytes = PAGE_BYTES,
  constantBytes = PAGE_BYTES,
  symbolBytes = PAGE_BYTES,
  withoutSections = false,
}: ElfOptions = {}): Buffer {
  const strings: number[] = [0];
  const text = (value: string): number =>
    strings.push(...Buffer.from(`${value}\0`)) - value.length - 1;
  const tags: [number, number][] = needed.map((name) => [1, text(name)]);
  if (rpath !== undefined) tags.push([15, text(rpath)]);
  if (runpath !== undefined) tags.push([29, text(runpath)]);
  const parts: Part[] = [
    { name: '.dynstr', flags: ALLOCATED, bytes: Buffer.from(strings) },
    { name: '.interp', flags: ALLOCATED, bytes: Buffer.from(`${interpreter ?? ''}\0`) },
    {
      name: '.dynamic',
      flags: ALLOCATED | WRITE,
      bytes: dynamicBytes([...tags, [5, PAGE_BYTES], [0, 0]]),
    },
    { name: '.text', flags: ALLOCATED | EXECUTABLE, bytes: Buffer.alloc(textBytes, 0x90) },
    { name: '.rodata', flags: ALLOCATED, bytes: Buffer.alloc(constantBytes, 0x61) },
    { name: '.eh_frame', flags: ALLOCATED, bytes: Buffer.alloc(PAGE_BYTES, 0x62) },
    { name: '.data', flags: ALLOCATED | WRITE, bytes: Buffer.alloc(PAGE_BYTES, 0x63) },
    { name: '.symtab', flags: 0, bytes: Buffer.alloc(symbolBytes, 0x64) },
  ];
  const names = Buffer.from(`\0${parts.map(({ name }) => name).join('\0')}\0`);
  const all = [...parts, { name: '', flags: 0, bytes: names }];
  let end = PAGE_BYTES;
  const placed = all.map((part) => {
    const offset = end;
    end += Math.ceil(part.bytes.length / PAGE_BYTES) * PAGE_BYTES;
    return { ...part, offset };
  });
  const sectionsAt = end;
  const file = Buffer.alloc(sectionsAt + (withoutSections ? 0 : (placed.length + 1) * 64));
  for (const { offset, bytes } of placed) file.set(bytes, offset);
  const segmentOf = (name: string) => placed.find((part) => part.name === name)!;
  const segments = [
    ...(interpreter === undefined ? [] : [{ type: 3, flags: 4, ...rangeOf(segmentOf('.interp')) }]),
    { type: 2, flags: 6, ...rangeOf(segmentOf('.dynamic')) },
    { type: 1, flags: 4, offset: 0, length: segmentOf('.text').offset },
    { type: 1, flags: 5, ...rangeOf(segmentOf('.text')) },
    { type: 1, flags: 4, ...rangeOf(segmentOf('.rodata')) },
    { type: 1, flags: 6, ...rangeOf(segmentOf('.data')) },
  ];
  writeHeader(file, segments.length, withoutSections ? 0 : placed.length + 1, sectionsAt);
  for (const [i, { type, flags, offset, length }] of segments.entries()) {
    const at = 64 + i * 56;
    file.writeUInt32LE(type, at);
    file.writeUInt32LE(flags, at + 4);
    for (const [field, value] of [
      [8, offset],
      [16, offset],
      [32, length],
      [40, length],
    ] as const) {
      file.writeBigUInt64LE(BigInt(value), at + field);
    }
  }
  if (withoutSections) return file;
  for (const [i, { name, flags, offset, bytes }] of placed.entries()) {
    const at = sectionsAt + (i + 1) * 64;
    file.writeUInt32LE(Math.max(0, names.indexOf(`\0${name}\0`) + 1), at);
    file.writeUInt32LE(1, at + 4);
    file.writeBigUInt64LE(BigInt(flags), at + 8);
    file.writeBigUInt64LE(BigInt(offset), at + 24);
    file.writeBigUInt64LE(BigInt(bytes.length), at + 32);
  }
  return file;
}

function writeHeader(file: Buffer, segments: number, sections: number, sectionsAt: number): void {
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  file.writeUInt16LE(3, 16);
  file.writeUInt16LE(X86_64, 18);
  file.writeBigUInt64LE(64n, 32);
  file.writeBigUInt64LE(BigInt(sectionsAt), 40);
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(segments, 56);
  file.writeUInt16LE(64, 58);
  file.writeUInt16LE(sections, 60);
  file.writeUInt16LE(Math.max(0, sections - 1), 62);
}

function dynamicBytes(entries: readonly (readonly [number, number])[]): Buffer {
  const bytes = Buffer.alloc(entries.length * 16);
  for (const [i, [tag, value]] of entries.entries()) {
    bytes.writeBigUInt64LE(BigInt(tag), i * 16);
    bytes.writeBigUInt64LE(BigInt(value), i * 16 + 8);
  }
  return bytes;
}

function rangeOf({ offset, bytes }: { offset: number; bytes: Buffer }) {
  return { offset, length: bytes.length };
}
