/**
 * Extended attributes as they are stored, in the end of an inode or in a block of their own: entries from
 * the front, values from the back.
 *
 *   entry   length of the name, namespace, offset of the value (16 bits), inode of the value (32 bits, 0),
 *           length of the value (32), hash (32, 0 in an inode), name padded to four bytes
 *
 * Four zero bytes end the entries. An empty value has the offset 0.
 */
import { beyond, damaged } from './ext4-error.js';
import { aclFromDisk, aclToDisk } from './posix-acl.js';

export const XATTR_MAGIC = 0xea02_0000;
const ENTRY_BYTES = 16;
const END_BYTES = 4;
const NAME_BYTES_MAX = 255;
/** Namespaces with their numbers; the whole names come first. The kernel knows no others. */
const PREFIXES: ReadonlyArray<readonly [number, string]> = [
  [2, 'system.posix_acl_access'],
  [3, 'system.posix_acl_default'],
  [1, 'user.'],
  [4, 'trusted.'],
  [6, 'security.'],
];

/** One attribute, in stored form. */
export interface StoredXattr {
  readonly namespace: number;
  readonly name: Buffer;
  readonly value: Uint8Array;
}

/** Positions of entries and values, in a buffer that holds both. */
export interface XattrArea {
  readonly bytes: Buffer;
  /** Position of the first entry. */
  readonly entriesAt: number;
  /** Offsets of values count from here. */
  readonly valuesFrom: number;
  readonly hasHashes: boolean;
}

/** @throws {ObdError} `Unsupported` for a name that ext4 has no form for, `InvalidArgument` for a bad ACL. */
export function toStored(name: string, value: Uint8Array): StoredXattr {
  for (const [namespace, prefix] of PREFIXES) {
    if (!name.startsWith(prefix)) continue;
    const rest = Buffer.from(name.slice(prefix.length), 'latin1');
    const isAcl = !prefix.endsWith('.');
    if (isAcl !== (rest.length === 0) || rest.length > NAME_BYTES_MAX) break;
    return { namespace, name: rest, value: isAcl ? aclToDisk(value) : value };
  }
  throw beyond('an extended attribute', `ext4 cannot hold the name ${JSON.stringify(name)}`);
}

export function fromStored(where: string, xattr: StoredXattr): [name: string, value: Uint8Array] {
  const prefix = PREFIXES.find(([namespace]) => namespace === xattr.namespace)?.[1];
  if (prefix === undefined) {
    throw beyond(where, `it has an extended attribute of the namespace ${xattr.namespace}`);
  }
  const value = Buffer.from(xattr.value);
  const isAcl = !prefix.endsWith('.');
  const name = prefix + xattr.name.toString('latin1');
  return [name, isAcl ? aclFromDisk(where, value) : value];
}

/** The order that the kernel keeps, and searches by. */
export function compareStored(a: StoredXattr, b: StoredXattr): number {
  return (
    a.namespace - b.namespace || a.name.length - b.name.length || Buffer.compare(a.name, b.name)
  );
}

/** Bytes that these take between the first entry and the end of the last value. */
export function storedBytes(xattrs: readonly StoredXattr[]): number {
  let total = END_BYTES;
  for (const { name, value } of xattrs) {
    total += ENTRY_BYTES + padded(name.length) + padded(value.length);
  }
  return total;
}

/** Fills a zeroed area. @returns The hash of all entries, for the header of a block. */
export function writeEntries(area: XattrArea, xattrs: readonly StoredXattr[]): number {
  const { bytes, valuesFrom } = area;
  let at = area.entriesAt;
  let valueEnd = bytes.length;
  let all = 0;
  for (const { namespace, name, value } of xattrs) {
    valueEnd -= padded(value.length);
    bytes.set(value, valueEnd);
    const hash = area.hasHashes ? hashOf(name, bytes.subarray(valueEnd), value.length) : 0;
    all = (rotate(all, 16) ^ hash) >>> 0;
    bytes.writeUInt8(name.length, at);
    bytes.writeUInt8(namespace, at + 1);
    bytes.writeUInt16LE(value.length === 0 ? 0 : valueEnd - valuesFrom, at + 2);
    bytes.writeUInt32LE(value.length, at + 8);
    bytes.writeUInt32LE(hash, at + 12);
    bytes.set(name, at + ENTRY_BYTES);
    at += ENTRY_BYTES + padded(name.length);
  }
  return all;
}

/** @throws {ObdError} `Corrupt`, `Unsupported`. */
export function readEntries(where: string, area: XattrArea): StoredXattr[] {
  const { bytes, valuesFrom } = area;
  const xattrs: StoredXattr[] = [];
  for (let at = area.entriesAt; ; ) {
    if (at + END_BYTES > bytes.length) throw damaged(where, 'its extended attributes have no end');
    if (bytes.readUInt32LE(at) === 0) return xattrs;
    const nameAt = at + ENTRY_BYTES;
    const nameEnd = nameAt + bytes.readUInt8(at);
    if (nameEnd > bytes.length) throw damaged(where, 'an extended attribute is cut short');
    const length = bytes.readUInt32LE(at + 8);
    const valueAt = length === 0 ? valuesFrom : valuesFrom + bytes.readUInt16LE(at + 2);
    if (bytes.readUInt32LE(at + 4) !== 0) {
      throw beyond(where, 'it has an extended attribute in a separate inode');
    }
    if (valueAt + length > bytes.length) {
      throw damaged(where, 'the value of an extended attribute leaves its place');
    }
    xattrs.push({
      namespace: bytes.readUInt8(at + 1),
      name: Buffer.from(bytes.subarray(nameAt, nameEnd)),
      value: Buffer.from(bytes.subarray(valueAt, valueAt + length)),
    });
    at = nameAt + padded(nameEnd - nameAt);
  }
}

function hashOf(name: Buffer, value: Buffer, valueBytes: number): number {
  let hash = 0;
  for (const byte of name) hash = (rotate(hash, 5) ^ byte) >>> 0;
  for (let at = 0; at < valueBytes; at += 4) {
    hash = (rotate(hash, 16) ^ value.readUInt32LE(at)) >>> 0;
  }
  return hash;
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}
