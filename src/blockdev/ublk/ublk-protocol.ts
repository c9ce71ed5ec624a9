/**
 * The ublk driver's numbers and structures, as in linux/ublk_cmd.h; in the byte order of the host, which is little-endian.
 *
 * Older kernels know a shorter `ublk_params`: its length is in its first field, and the parts we set are in all of them.
 */
import { constants } from 'node:os';
import { SECTOR_BYTES } from '../../io/block-sizes.js';

/** Of IORING_OP_URING_CMD; ioctl-encoded. */
export const Commands = {
  GET_DEV_INFO: 0x80207502,
  ADD_DEV: 0xc0207504,
  DEL_DEV: 0xc0207505,
  START_DEV: 0xc0207506,
  STOP_DEV: 0xc0207507,
  SET_PARAMS: 0xc0207508,
  GET_PARAMS: 0x80207509,
  START_USER_RECOVERY: 0xc0207510,
  END_USER_RECOVERY: 0xc0207511,
  GET_FEATURES: 0x80207513,
} as const;
export type CommandName = keyof typeof Commands;

/** The device waits for the next server, which gets what the last one left unanswered. */
export const FEATURES = 0x08 | 0x10 | 0x40;
export const FEATURES_BYTES = 8;
export const DEVICE_ID_ANY = 0xffffffff;

export const States = { Dead: 0, Live: 1, Quiesced: 2 } as const;

export const Requests = { Read: 0, Write: 1, Flush: 2, Discard: 3, WriteZeroes: 5 } as const;
/** A flag in the word whose lowest byte is the request. */
export const REQUEST_NO_UNMAP = 0x8000;

const COMMAND_BYTES = 32;
export const INFO_BYTES = 64;
const PARAMS_BYTES = 60;
const QUEUE_NONE = 0xffff;
const PARAM_BASIC = 1;
const PARAM_DISCARD = 2;
const ATTRIBUTE_READ_ONLY = 1;
const ATTRIBUTE_VOLATILE_CACHE = 4;
const SECTOR_SHIFT = 9;
/** The I/O sizes that the driver announces: a page of 4 KiB, which is ext4's block. */
const PAGE_SHIFT = 12;

export interface DeviceInfo {
  readonly deviceId: number;
  readonly state: number;
  readonly depth: number;
  readonly ioBytesMax: number;
  readonly features: number;
  /** Ours to choose when the device is added: two 32-bit numbers. */
  readonly owner: number;
  readonly name: number;
  readonly serverPid: number;
}

export interface DeviceParameters {
  readonly sizeBytes: number;
  readonly ioBytesMax: number;
  readonly writable: boolean;
  /** Limit of a discard, and of a write of zeroes. */
  readonly zeroBytesMax: number;
}

/** A `ublksrv_ctrl_cmd`; address and length of what goes with it are the add-on's to fill in. */
export function encodeCommand(deviceId: number, data: number): Uint8Array {
  const bytes = new Uint8Array(COMMAND_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, deviceId, true);
  view.setUint16(4, QUEUE_NONE, true);
  view.setUint32(16, data, true);
  return bytes;
}

/** A `ublksrv_ctrl_dev_info` of one queue. */
export function encodeInfo(info: DeviceInfo): Uint8Array {
  const bytes = new Uint8Array(INFO_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 1, true);
  view.setUint16(2, info.depth, true);
  view.setUint16(4, info.state, true);
  view.setUint32(8, info.ioBytesMax, true);
  view.setUint32(12, info.deviceId, true);
  view.setInt32(16, info.serverPid, true);
  view.setUint32(24, info.features, true);
  view.setUint32(32, info.name, true);
  view.setUint32(36, info.owner, true);
  return bytes;
}

export function decodeInfo(bytes: Uint8Array): DeviceInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, INFO_BYTES);
  return {
    depth: view.getUint16(2, true),
    state: view.getUint16(4, true),
    ioBytesMax: view.getUint32(8, true),
    deviceId: view.getUint32(12, true),
    serverPid: view.getInt32(16, true),
    features: view.getUint32(24, true),
    name: view.getUint32(32, true),
    owner: view.getUint32(36, true),
  };
}

/** A `ublk_params` as far as `discard`. */
export function encodeParameters(parameters: DeviceParameters): Uint8Array {
  const bytes = new Uint8Array(PARAMS_BYTES);
  const view = new DataView(bytes.buffer);
  const { writable } = parameters;
  view.setUint32(0, PARAMS_BYTES, true);
  view.setUint32(4, writable ? PARAM_BASIC | PARAM_DISCARD : PARAM_BASIC, true);
  // No FUA: it would be a flush of ours as well, and the kernel then asks for the flush itself.
  view.setUint32(8, writable ? ATTRIBUTE_VOLATILE_CACHE : ATTRIBUTE_READ_ONLY, true);
  view.setUint8(12, SECTOR_SHIFT);
  view.setUint8(13, PAGE_SHIFT);
  view.setUint8(14, PAGE_SHIFT);
  view.setUint8(15, PAGE_SHIFT);
  view.setUint32(16, parameters.ioBytesMax / SECTOR_BYTES, true);
  view.setBigUint64(24, BigInt(parameters.sizeBytes / SECTOR_BYTES), true);
  if (!writable) return bytes;
  const zeroSectors = parameters.zeroBytesMax / SECTOR_BYTES;
  view.setUint32(44, 1 << PAGE_SHIFT, true);
  view.setUint32(48, zeroSectors, true);
  view.setUint32(52, zeroSectors, true);
  view.setUint16(56, 1, true);
  return bytes;
}

/** The input of GET_PARAMS: how much there is room for. */
export function emptyParameters(): Uint8Array {
  const bytes = new Uint8Array(PARAMS_BYTES);
  new DataView(bytes.buffer).setUint32(0, PARAMS_BYTES, true);
  return bytes;
}

export function decodeParameters(bytes: Uint8Array): DeviceParameters {
  const view = new DataView(bytes.buffer, bytes.byteOffset, PARAMS_BYTES);
  return {
    sizeBytes: Number(view.getBigUint64(24, true)) * SECTOR_BYTES,
    ioBytesMax: view.getUint32(16, true) * SECTOR_BYTES,
    writable: (view.getUint32(8, true) & ATTRIBUTE_READ_ONLY) === 0,
    zeroBytesMax: view.getUint32(52, true) * SECTOR_BYTES,
  };
}

/** Answers to a request that failed: -errno. */
export const Answers = {
  Io: -constants.errno.EIO,
  Unsupported: -constants.errno.EOPNOTSUPP,
} as const;
