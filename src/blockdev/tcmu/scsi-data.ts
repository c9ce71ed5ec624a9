/**
 * The description of a disk: the data of every SCSI command that reads something other than blocks.
 *
 * With these data Linux finds a disk of 512-byte blocks that does not rotate and takes UNMAP for a discard. If the disk
 * can be written, it has a write cache that Linux flushes; if not, it is write protected.
 */
import { DEVICE_BLOCK_BYTES } from '../../io/block-sizes.js';
import { READ_AHEAD_KIB } from '../read-ahead.js';
import { cdbBytesOf, Opcodes, SERVICE_ACTION_OF, ServiceActions } from './scsi-command.js';
import { SENSE_BYTES, type Sense, Senses, writeSense } from './scsi-sense.js';

/** The disk that the data describe. */
export interface ScsiUnit {
  readonly blocks: number;
  readonly writable: boolean;
  /** 32 lower-case hexadecimal digits that no other disk of this host has. */
  readonly serial: string;
}

/** Limit of one READ or WRITE: one buffer per thread has room for it. */
export const TRANSFER_BLOCKS_MAX = (1 << 20) / DEVICE_BLOCK_BYTES;
/**
 * Linux reads ahead twice as much (disk_update_readahead() in block/genhd.c). It does so at the end of its probe, which runs
 * concurrently with an attach: its default would then replace the value that the attach wrote to /sys.
 */
const TRANSFER_BLOCKS_BEST = (READ_AHEAD_KIB * 1024) / 2 / DEVICE_BLOCK_BYTES;
/** Limit of one descriptor of UNMAP, and of all of them: 1 GiB. */
const UNMAP_BLOCKS_MAX = 1 << 21;
/** One page of parameters. */
const UNMAP_DESCRIPTORS_MAX = 255;
/** WRITE SAME writes its block as often: 32 MiB. */
export const WRITE_SAME_BLOCKS_MAX = 1 << 16;

const VENDOR = 'OBD-TS  ';
const PRODUCT = 'Virtual disk    ';
const REVISION = '0001';
/** NAA 6, and the number that Linux's targets have from the IEEE. */
const NAA_PREFIX = '6001405';
const READ_ONLY = 0x80;
const HAS_FUA = 0x10;
const OTHER_PAGES = [0x01, 0x0a];
const CACHING_PAGE = 0x08;
const ALL_PAGES = 0x3f;

/** Answers a command that reads data, cut to what it allows; or says why not. */
export function dataIn(unit: ScsiUnit, cdb: Buffer): Buffer | Sense {
  switch (cdb[0]) {
    case Opcodes.Inquiry:
      return cut(inquiry(unit, cdb), cdb.readUInt16BE(3));
    case Opcodes.RequestSense:
      return cut(requestSense(cdb), cdb[4]!);
    case Opcodes.ModeSense6:
      return cut(modeSense(unit, cdb), cdb[4]!);
    case Opcodes.ModeSense10:
      return cut(modeSense(unit, cdb), cdb.readUInt16BE(7));
    case Opcodes.ReadCapacity10:
      return readCapacity10(unit);
    case Opcodes.ServiceActionIn16:
      if ((cdb[1]! & 0x1f) !== ServiceActions.ReadCapacity16) return Senses.InvalidField;
      return cut(readCapacity16(unit), cdb.readUInt32BE(10));
    case Opcodes.ReportLuns:
      return cut(reportLuns(), cdb.readUInt32BE(6));
    case Opcodes.MaintenanceIn:
      if ((cdb[1]! & 0x1f) !== ServiceActions.ReportSupportedOperationCodes)
        return Senses.InvalidField;
      return cut(supportedOpcodes(cdb), cdb.readUInt32BE(6));
    default:
      return Senses.UnknownCommand;
  }
}

/**
 * Checks that the parameters of a MODE SELECT equal those of MODE SENSE: none of them can be changed.
 * @param list - The command's data, of the length that it states.
 */
export function checkModeSelect(unit: ScsiUnit, cdb: Buffer, list: Buffer): Sense {
  const short = cdb[0] === Opcodes.ModeSelect6;
  const headerBytes = short ? 4 : 8;
  if ((cdb[1]! & 0x10) === 0 || (cdb[1]! & 0x01) !== 0) return Senses.InvalidField;
  if (list.length === 0) return Senses.None;
  if (list.length < headerBytes) return Senses.ListTooShort;
  const descriptorBytes = short ? list[3]! : list.readUInt16BE(6);
  let at = headerBytes + descriptorBytes;
  if (at > list.length) return Senses.ListTooShort;
  while (at < list.length) {
    if (at + 2 > list.length || at + 2 + list[at + 1]! > list.length) return Senses.ListTooShort;
    const given = list.subarray(at, at + 2 + list[at + 1]!);
    const page = modePage(unit, given[0]! & 0x3f);
    if (page === undefined || !page.equals(given)) return Senses.InvalidList;
    at += given.length;
  }
  return Senses.None;
}

/** A run of blocks. */
export interface BlockRange {
  readonly first: number;
  readonly count: number;
}

/** What UNMAP names. @param list - What came with it, of the length that it states. */
export function unmapRanges(unit: ScsiUnit, list: Buffer): BlockRange[] | Sense {
  if (list.length === 0) return [];
  if (list.length < 8) return Senses.ListTooShort;
  const bytes = list.readUInt16BE(2);
  if (bytes % 16 !== 0 || 8 + bytes > list.length) return Senses.ListTooShort;
  if (bytes / 16 > UNMAP_DESCRIPTORS_MAX) return Senses.InvalidList;
  const ranges: BlockRange[] = [];
  let total = 0;
  for (let at = 8; at < 8 + bytes; at += 16) {
    const first = list.readUInt32BE(at) * 2 ** 32 + list.readUInt32BE(at + 4);
    const count = list.readUInt32BE(at + 8);
    total += count;
    if (first + count > unit.blocks) return Senses.OutOfRange;
    if (total > UNMAP_BLOCKS_MAX) return Senses.InvalidList;
    if (count > 0) ranges.push({ first, count });
  }
  return ranges;
}

function cut(data: Buffer | Sense, bytesMax: number): Buffer | Sense {
  return typeof data === 'number' ? data : data.subarray(0, bytesMax);
}

function inquiry(unit: ScsiUnit, cdb: Buffer): Buffer | Sense {
  const page = cdb[2]!;
  if ((cdb[1]! & 1) !== 0) return vitalData(unit, page);
  if (page !== 0) return Senses.InvalidField;
  // A disk, SPC-4, 31 bytes more, commands are queued.
  const head = Buffer.from([0x00, 0x00, 0x06, 0x02, 31, 0x00, 0x00, 0x02]);
  return Buffer.concat([head, Buffer.from(VENDOR + PRODUCT + REVISION, 'latin1')]);
}

function vitalData(unit: ScsiUnit, page: number): Buffer | Sense {
  switch (page) {
    case 0x00:
      return vitalPage(page, Buffer.from([0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]));
    case 0x80:
      return vitalPage(page, Buffer.from(unit.serial, 'latin1'));
    case 0x83:
      return vitalPage(page, designators(unit));
    case 0xb0:
      return vitalPage(page, blockLimits(unit));
    case 0xb1: {
      const characteristics = Buffer.alloc(60);
      characteristics.writeUInt16BE(1, 0);
      return vitalPage(page, characteristics);
    }
    case 0xb2:
      // UNMAP, both WRITE SAME with UNMAP; what is unmapped reads as zeroes; thin.
      return vitalPage(page, Buffer.from(unit.writable ? [0, 0xe4, 2, 0] : [0, 0, 0, 0]));
    default:
      return Senses.InvalidField;
  }
}

function vitalPage(page: number, content: Buffer): Buffer {
  const header = Buffer.from([0x00, page, 0x00, 0x00]);
  header.writeUInt16BE(content.length, 2);
  return Buffer.concat([header, content]);
}

function designators(unit: ScsiUnit): Buffer {
  const vendor = Buffer.from(VENDOR + unit.serial, 'latin1');
  const naa = Buffer.from((NAA_PREFIX + unit.serial).slice(0, 32), 'hex');
  return Buffer.concat([
    Buffer.from([0x02, 0x01, 0x00, vendor.length]),
    vendor,
    Buffer.from([0x01, 0x03, 0x00, naa.length]),
    naa,
  ]);
}

function blockLimits(unit: ScsiUnit): Buffer {
  const limits = Buffer.alloc(60);
  // WSNZ: WRITE SAME of 0 blocks is refused; it does not mean all blocks.
  limits[0] = 1;
  limits.writeUInt32BE(TRANSFER_BLOCKS_MAX, 4);
  limits.writeUInt32BE(TRANSFER_BLOCKS_BEST, 8);
  if (unit.writable) {
    limits.writeUInt32BE(UNMAP_BLOCKS_MAX, 16);
    limits.writeUInt32BE(UNMAP_DESCRIPTORS_MAX, 20);
    limits.writeUInt32BE(1, 24);
    limits.writeUInt32BE(WRITE_SAME_BLOCKS_MAX, 36);
  }
  return limits;
}

function requestSense(cdb: Buffer): Buffer | Sense {
  if ((cdb[1]! & 1) !== 0) return Senses.InvalidField;
  const data = Buffer.alloc(SENSE_BYTES);
  writeSense(data, 0, Senses.None);
  return data;
}

function modeSense(unit: ScsiUnit, cdb: Buffer): Buffer | Sense {
  // Page control 1, changeable values: none of them. 3, saved values: not supported.
  const control = cdb[2]! >> 6;
  const code = cdb[2]! & 0x3f;
  const subpage = cdb[3]!;
  if (control === 3 || (subpage !== 0 && subpage !== 0xff)) return Senses.InvalidField;
  const codes = code === ALL_PAGES ? [OTHER_PAGES[0]!, CACHING_PAGE, OTHER_PAGES[1]!] : [code];
  const pages: Buffer[] = [];
  for (const each of codes) {
    const page = modePage(unit, each);
    if (page === undefined) return Senses.InvalidField;
    pages.push(control === 1 ? page.fill(0, 2) : page);
  }
  const content = Buffer.concat(pages);
  const specific = unit.writable ? HAS_FUA : READ_ONLY;
  if (cdb[0] === Opcodes.ModeSense6) {
    return Buffer.concat([Buffer.from([3 + content.length, 0, specific, 0]), content]);
  }
  const header = Buffer.alloc(8);
  header.writeUInt16BE(6 + content.length, 0);
  header[3] = specific;
  return Buffer.concat([header, content]);
}

function modePage(unit: ScsiUnit, code: number): Buffer | undefined {
  switch (code) {
    case 0x01:
      return Buffer.from([0x01, 0x0a, ...Buffer.alloc(10)]);
    case CACHING_PAGE:
      return Buffer.from([CACHING_PAGE, 0x12, unit.writable ? 0x04 : 0, ...Buffer.alloc(17)]);
    case 0x0a:
      // Fixed sense format; tasks may be reordered; no busy timeout.
      return Buffer.from([0x0a, 0x0a, 0x02, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0]);
    default:
      return undefined;
  }
}

function readCapacity10(unit: ScsiUnit): Buffer {
  const data = Buffer.alloc(8);
  data.writeUInt32BE(Math.min(unit.blocks - 1, 0xffffffff), 0);
  data.writeUInt32BE(DEVICE_BLOCK_BYTES, 4);
  return data;
}

function readCapacity16(unit: ScsiUnit): Buffer {
  const data = Buffer.alloc(32);
  const last = unit.blocks - 1;
  data.writeUInt32BE(Math.floor(last / 2 ** 32), 0);
  data.writeUInt32BE(last % 2 ** 32, 4);
  data.writeUInt32BE(DEVICE_BLOCK_BYTES, 8);
  // Blocks may be unmapped, and read as zeroes then.
  if (unit.writable) data[14] = 0xc0;
  return data;
}

function reportLuns(): Buffer {
  const data = Buffer.alloc(16);
  data.writeUInt32BE(8, 0);
  return data;
}

function supportedOpcodes(cdb: Buffer): Buffer | Sense {
  const opcodes: number[] = Object.values(Opcodes);
  const options = cdb[2]! & 0x07;
  const opcode = cdb[3]!;
  const action = cdb.readUInt16BE(4);
  const own = SERVICE_ACTION_OF.get(opcode);
  if (options === 0) return everyOpcode(opcodes);
  // 1: an opcode without a service action; 2: one with; 3: either.
  if (options > 3 || (options === 1 && own !== undefined)) return Senses.InvalidField;
  if (options === 2 && own === undefined) return Senses.InvalidField;
  const known = opcodes.includes(opcode) && (own === undefined || own === action);
  if (!known) return Buffer.from([0, 0x01, 0, 0]);
  const usage = Buffer.alloc(cdbBytesOf(opcode), 0xff);
  usage[0] = opcode;
  return Buffer.concat([Buffer.from([0, 0x03, 0, usage.length]), usage]);
}

function everyOpcode(opcodes: readonly number[]): Buffer {
  const data = Buffer.alloc(4 + 8 * opcodes.length);
  data.writeUInt32BE(8 * opcodes.length, 0);
  for (const [i, opcode] of opcodes.entries()) {
    const at = 4 + 8 * i;
    const action = SERVICE_ACTION_OF.get(opcode);
    data[at] = opcode;
    data.writeUInt16BE(action ?? 0, at + 2);
    data[at + 5] = action === undefined ? 0 : 1;
    data.writeUInt16BE(cdbBytesOf(opcode), at + 6);
  }
  return data;
}
