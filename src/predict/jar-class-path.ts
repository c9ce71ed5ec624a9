/**
 * The jars that a jar names in the Class-Path of its manifest (JAR File Specification, "Per-Entry Attributes").
 *
 * Only the end, the directory and the manifest of the archive are read, each up to a bound; the manifest is inflated up to
 * one as well, so no archive grows without end.
 */
import { promisify } from 'node:util';
import { inflateRaw } from 'node:zlib';
import type { ImageFile, ImageFiles } from './image-files.js';

const MANIFEST = 'META-INF/MANIFEST.MF';
/** The end record, and the longest comment behind it, which hardly any jar has. (APPNOTE.TXT 4.3.16) */
const END_BYTES = 22;
const END_BYTES_MAX = END_BYTES + 0xffff;
const END_MAGIC = 0x06054b50;
const ENTRY_MAGIC = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL_MAGIC = 0x04034b50;
const LOCAL_BYTES = 30;
/** jar(1) writes the manifest first, so its entry is at the beginning of the directory. */
const DIRECTORY_BYTES_MAX = 8 << 10;
const MANIFEST_BYTES_MAX = 64 << 10;
const NAMES_MAX = 100;
const STORED = 0;
const DEFLATED = 8;

const inflate = promisify(inflateRaw);

/** @returns Relative to the directory of the jar; none if it is no archive or has no class path. */
export async function classPathOf(image: ImageFiles, jar: ImageFile): Promise<string[]> {
  const bytes = await readManifest(image, jar);
  // A line that begins with a blank continues the one before.
  const text = bytes?.toString().replace(/\r?\n /g, '') ?? '';
  const [, list = ''] = /^Class-Path:([^\r\n]*)/im.exec(text) ?? [];
  return list
    .split(' ')
    .filter((name) => name !== '')
    .slice(0, NAMES_MAX);
}

async function readManifest(image: ImageFiles, jar: ImageFile): Promise<Buffer | undefined> {
  const entry = await findEntry(image, jar);
  if (entry === undefined) return undefined;
  const { method, storedBytes, localAt } = entry;
  const local = await image.read(jar, localAt, LOCAL_BYTES);
  if (local.length < LOCAL_BYTES || local.readUInt32LE(0) !== LOCAL_MAGIC) return undefined;
  const at = localAt + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28);
  const bytes = await image.read(jar, at, Math.min(storedBytes, MANIFEST_BYTES_MAX));
  if (method === STORED) return bytes;
  if (method !== DEFLATED) return undefined;
  try {
    return await inflate(bytes, { maxOutputLength: MANIFEST_BYTES_MAX });
  } catch {
    // Damaged or too large: the JVM would use it, a prediction can do without.
    return undefined;
  }
}

/** The end record in the last bytes of an archive. */
async function findEnd(image: ImageFiles, jar: ImageFile, tailBytes: number) {
  const tail = await image.read(jar, Math.max(0, jar.sizeBytes - tailBytes), tailBytes);
  for (let end = tail.length - END_BYTES; end >= 0; end--) {
    if (tail.readUInt32LE(end) === END_MAGIC) return { tail, end };
  }
  return undefined;
}

async function findEntry(image: ImageFiles, jar: ImageFile) {
  const found =
    (await findEnd(image, jar, END_BYTES)) ?? (await findEnd(image, jar, END_BYTES_MAX));
  if (found === undefined) return undefined;
  const { tail, end } = found;
  const bytesMax = Math.min(tail.readUInt32LE(end + 12), DIRECTORY_BYTES_MAX);
  const directory = await image.read(jar, tail.readUInt32LE(end + 16), bytesMax);
  for (let at = 0; at + ENTRY_BYTES <= directory.length; ) {
    if (directory.readUInt32LE(at) !== ENTRY_MAGIC) return undefined;
    const nameBytes = directory.readUInt16LE(at + 28);
    const name = directory.toString('latin1', at + ENTRY_BYTES, at + ENTRY_BYTES + nameBytes);
    if (name === MANIFEST) {
      return {
        method: directory.readUInt16LE(at + 10),
        storedBytes: directory.readUInt32LE(at + 20),
        localAt: directory.readUInt32LE(at + 42),
      };
    }
    at +=
      ENTRY_BYTES + nameBytes + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  return undefined;
}
