/**
 * The 4096-byte block that opens a layer, and with other flags closes it: parse and write.
 *
 *   @0 magic  @24 u32 size = 390  @28 u32 flags  @32 u64 index offset  @40 u64 index entries
 *   @48 u64 virtual bytes  @56 uuid  @93 parent uuid (37 bytes each, NUL-ended)  @130 u16 zero
 *   @132 u8 version  @133 u8 sub-version  @134 user tag, 256 bytes  @390 zeroes
 *
 * The block has no checksum; a reader can only test its magic, its flags and what its fields say of
 * a file whose size it knows. docs/formats/lsmt.md has every byte.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { SECTOR_BYTES } from '../io/block-sizes.js';
import { corrupt } from '../io/format-error.js';
import { NULL_UUID, normalizeUuid } from './layer-uuid.js';

export const HEADER_BYTES = 4096;
const USER_TAG_BYTES_MAX = 256;

const STRUCT_BYTES = 390;
const MAGIC = Buffer.from('4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a', 'hex');
const FLAGS_AT = 28;
const VIRTUAL_BYTES_AT = 48;
const UUID_AT = 56;
const PARENT_UUID_AT = 93;
const USER_TAG_AT = 134;

/** Set in the block that opens a file, clear in the one that closes it. */
export const FLAG_HEADER = 1;
/** Set in a file with data, clear in the separate index file of a writable layer. */
export const FLAG_DATA = 2;
export const FLAG_SEALED = 4;
/** Data lie at their virtual offset, after the header. */
export const FLAG_SPARSE = 16;

export interface LayerHeader {
  readonly flags: number;
  readonly indexOffset: number;
  /** Entries of 16 bytes, padding included. */
  readonly indexEntries: number;
  readonly virtualBytes: number;
  /** Upper case. */
  readonly uuid: string;
  readonly parentUuid: string;
  /** Free bytes up to the first NUL. */
  readonly userTag: string;
}

/** Whether `block`, the first bytes of a file, has a layer's magic. */
export function hasLayerMagic(block: Uint8Array): boolean {
  return block.length >= MAGIC.length && MAGIC.equals(block.subarray(0, MAGIC.length));
}

/**
 * Parses the first 4096 bytes of a layer file, or its last, which stand at `at` of `file`.
 *
 * @param flagsMask - The flags to look at, and
 * @param flagsWanted - what they must be.
 * @throws {ObdError} `Corrupt`.
 */
export function parseLayerHeader(
  block: Buffer,
  file: { readonly label: string },
  at: number,
  flagsMask: number,
  flagsWanted: number,
): LayerHeader {
  if (!hasLayerMagic(block)) throw corrupt(file, at, 'no LSMT magic');
  const flags = block.readUInt32LE(FLAGS_AT);
  if ((flags & flagsMask) !== flagsWanted) {
    const wanted = `${flagsWanted} among the bits ${flagsMask}`;
    throw corrupt(file, at + FLAGS_AT, `flags are ${flags}, and must be ${wanted}`);
  }
  const u64 = (field: number, name: string): number => {
    const value = block.readBigUInt64LE(field);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw corrupt(file, at + field, `${name} ${value} is past 2^53`);
  };
  const uuidAt = (field: number): string => {
    const text = textOf(block.subarray(field, field + 37));
    const uuid = text === '' ? NULL_UUID : normalizeUuid(text);
    if (uuid === undefined) throw corrupt(file, at + field, 'not a UUID');
    return uuid;
  };
  const virtualBytes = u64(VIRTUAL_BYTES_AT, 'virtual size');
  if (virtualBytes % SECTOR_BYTES !== 0) {
    const rule = `virtual size ${virtualBytes} is not a multiple of ${SECTOR_BYTES}`;
    throw corrupt(file, at + VIRTUAL_BYTES_AT, rule);
  }
  return {
    flags,
    indexOffset: u64(32, 'index offset'),
    indexEntries: u64(40, 'index size'),
    virtualBytes,
    uuid: uuidAt(UUID_AT),
    parentUuid: uuidAt(PARENT_UUID_AT),
    userTag: textOf(block.subarray(USER_TAG_AT, USER_TAG_AT + USER_TAG_BYTES_MAX)),
  };
}

/** @throws {ObdError} `InvalidArgument` if the user tag does not fit. */
export function encodeLayerHeader(header: LayerHeader): Buffer {
  const tag = Buffer.from(header.userTag, 'latin1');
  if (tag.length > USER_TAG_BYTES_MAX) {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot write a layer: its user tag has ${tag.length} bytes, at most ${USER_TAG_BYTES_MAX}`,
    );
  }
  const block = Buffer.alloc(HEADER_BYTES);
  block.set(MAGIC, 0);
  block.writeUInt32LE(STRUCT_BYTES, 24);
  block.writeUInt32LE(header.flags, FLAGS_AT);
  block.writeBigUInt64LE(BigInt(header.indexOffset), 32);
  block.writeBigUInt64LE(BigInt(header.indexEntries), 40);
  block.writeBigUInt64LE(BigInt(header.virtualBytes), VIRTUAL_BYTES_AT);
  block.write(header.uuid, UUID_AT, 'latin1');
  block.write(header.parentUuid, PARENT_UUID_AT, 'latin1');
  block.writeUInt8(1, 132);
  block.writeUInt8(1, 133);
  block.set(tag, USER_TAG_AT);
  return block;
}

function textOf(field: Buffer): string {
  const end = field.indexOf(0);
  return field.toString('latin1', 0, end === -1 ? field.length : end);
}
