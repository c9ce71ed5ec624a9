/**
 * POSIX ACLs: ext4 stores them in a shorter form than the one that getxattr(2) and archives have.
 *
 *   attribute   version 2 (32 bits), then per entry tag, permissions (16 bits each), id (32 bits)
 *   on disk     version 1 (32 bits), then the same, with an id only where the tag names someone
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { damaged } from './ext4-error.js';

const ATTRIBUTE_VERSION = 2;
const DISK_VERSION = 1;
const HEADER_BYTES = 4;
const SHORT_BYTES = 4;
const LONG_BYTES = 8;
/** ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER. */
const TAGS = new Set([0x1, 0x2, 0x4, 0x8, 0x10, 0x20]);
const TAGS_WITH_ID = new Set([0x2, 0x8]);
const NOBODY = 0xffff_ffff;

/** @throws {ObdError} `InvalidArgument` if `value` is no ACL. */
export function aclToDisk(value: Uint8Array): Uint8Array {
  const source = Buffer.from(value);
  const isAcl =
    source.length >= HEADER_BYTES &&
    (source.length - HEADER_BYTES) % LONG_BYTES === 0 &&
    source.readUInt32LE(0) === ATTRIBUTE_VERSION;
  if (!isAcl) throw notAnAcl(`${source.length} bytes of another form`);
  const target = Buffer.alloc(source.length);
  target.writeUInt32LE(DISK_VERSION, 0);
  let end = HEADER_BYTES;
  for (let at = HEADER_BYTES; at < source.length; at += LONG_BYTES) {
    const tag = source.readUInt16LE(at);
    if (!TAGS.has(tag)) throw notAnAcl(`an entry with the tag ${tag}`);
    const length = TAGS_WITH_ID.has(tag) ? LONG_BYTES : SHORT_BYTES;
    target.set(source.subarray(at, at + length), end);
    end += length;
  }
  return target.subarray(0, end);
}

/** @throws {ObdError} `Corrupt`. */
export function aclFromDisk(where: string, stored: Buffer): Uint8Array {
  if (stored.length < HEADER_BYTES || stored.readUInt32LE(0) !== DISK_VERSION) {
    throw damaged(where, 'its ACL has an unknown form');
  }
  const entries: Buffer[] = [Buffer.from([ATTRIBUTE_VERSION, 0, 0, 0])];
  for (let at = HEADER_BYTES; at < stored.length; ) {
    const entry = Buffer.alloc(LONG_BYTES);
    entry.writeUInt32LE(NOBODY, SHORT_BYTES);
    const tag = at + SHORT_BYTES <= stored.length ? stored.readUInt16LE(at) : 0;
    const length = TAGS_WITH_ID.has(tag) ? LONG_BYTES : SHORT_BYTES;
    if (!TAGS.has(tag) || at + length > stored.length) throw damaged(where, 'its ACL is cut short');
    entry.set(stored.subarray(at, at + length), 0);
    entries.push(entry);
    at += length;
  }
  return Buffer.concat(entries);
}

function notAnAcl(found: string): ObdError {
  return new ObdError(ErrorCodes.InvalidArgument, `Cannot store the POSIX ACL: it is ${found}`);
}
