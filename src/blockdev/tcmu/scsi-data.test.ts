/**
 * Goal: a disk describes itself as the standards lay down, byte for byte where Linux looks.
 * Method: each page and each form of a command, for a disk that can be written and one that cannot.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blockCountOf, blockOf, Opcodes } from './scsi-command.js';
import { dataIn, type ScsiUnit } from './scsi-data.js';
import { type Sense, Senses, writeSense } from './scsi-sense.js';

const SERIAL = '0123456789abcdef0123456789abcdef';
const READ_ONLY: ScsiUnit = { blocks: 2048, writable: false, serial: SERIAL };
const WRITABLE: ScsiUnit = { ...READ_ONLY, writable: true };

function cdbOf(...bytes: number[]): Buffer {
  const cdb = Buffer.alloc(16);
  cdb.set(bytes);
  return cdb;
}

function ask(unit: ScsiUnit, ...bytes: number[]): Buffer {
  const data = dataIn(unit, cdbOf(...bytes));
  assert.ok(Buffer.isBuffer(data), `sense ${Number(data).toString(16)}`);
  return data;
}

function refusal(...bytes: number[]): Buffer | Sense {
  return dataIn(WRITABLE, cdbOf(...bytes));
}

const page = (unit: ScsiUnit, code: number) => ask(unit, 0x12, 1, code, 0xff, 0xff, 0);
const modes = (unit: ScsiUnit, code: number) => ask(unit, 0x1a, 8, code, 0, 255, 0);

test('blocks and counts of each group of commands', () => {
  const cdb = (...bytes: number[]) => cdbOf(...bytes);
  assert.equal(blockOf(cdb(0x08, 0xff, 0xff, 0xff, 0, 0)), 0x1fffff);
  assert.equal(blockCountOf(cdb(0x08, 0, 0, 0, 0, 0)), 256);
  assert.equal(blockOf(cdb(0x28, 0, 0xff, 0xff, 0xff, 0xfe)), 0xfffffffe);
  assert.equal(blockCountOf(cdb(0x28, 0, 0, 0, 0, 0, 0, 1, 2)), 258);
  assert.equal(blockCountOf(cdb(0xa8, 0, 0, 0, 0, 0, 0, 1, 0, 2)), 65538);
  assert.equal(blockOf(cdb(0x88, 0, 0, 0, 0, 1, 0, 0, 0, 2)), 2 ** 32 + 2);
  assert.equal(blockCountOf(cdb(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)), 65536);
});

test('vital product data: the list of pages, the serial number, names of the disk', () => {
  assert.deepEqual([...page(WRITABLE, 0)], [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
  assert.equal(page(WRITABLE, 0x80).toString('latin1', 4), SERIAL);
  const names = page(WRITABLE, 0x83);
  assert.equal(names.readUInt16BE(2), names.length - 4);
  assert.deepEqual([...names.subarray(4, 8)], [2, 1, 0, 40]);
  assert.equal(names.toString('latin1', 8, 48), `OBD-TS  ${SERIAL}`);
  assert.deepEqual([...names.subarray(48, 52)], [1, 3, 0, 16]);
  assert.equal(names.toString('hex', 52), '60014050123456789abcdef012345678');
});

test('block limits: what can be unmapped, only of a disk that can be written', () => {
  const limits = page(WRITABLE, 0xb0);
  assert.equal(limits.length, 64);
  assert.equal(limits.readUInt32BE(8), 2048);
  assert.equal(limits.readUInt32BE(12), 256, 'half of the readahead, in blocks of 512 bytes');
  assert.equal(limits.readUInt32BE(20), 1 << 21);
  assert.equal(limits.readUInt32BE(24), 255);
  assert.equal(limits.readUInt32BE(40), 1 << 16);
  const none = page(READ_ONLY, 0xb0);
  assert.deepEqual(none.subarray(16), Buffer.alloc(48));
  assert.equal(page(WRITABLE, 0xb2)[5], 0xe4);
  assert.equal(page(READ_ONLY, 0xb2)[5], 0);
  assert.equal(page(READ_ONLY, 0xb1).readUInt16BE(4), 1);
});

test('capacities, also beyond 2 TiB', () => {
  const large = { ...WRITABLE, blocks: 2 ** 33 + 5 };
  assert.deepEqual([...ask(READ_ONLY, 0x25)], [0, 0, 7, 0xff, 0, 0, 2, 0]);
  assert.deepEqual([...ask(large, 0x25)], [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
  const long = (unit: ScsiUnit) => ask(unit, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32);
  assert.equal(long(large).readBigUInt64BE(), 2n ** 33n + 4n);
  assert.equal(long(large).readUInt32BE(8), 512);
  assert.equal(long(large)[14], 0xc0);
  assert.equal(long(READ_ONLY)[14], 0);
});

test('mode pages: write protection, FUA, the write cache; short and long, changeable ones', () => {
  assert.deepEqual([...modes(READ_ONLY, 0x08).subarray(0, 7)], [23, 0, 0x80, 0, 8, 0x12, 0]);
  assert.deepEqual([...modes(WRITABLE, 0x08).subarray(0, 7)], [23, 0, 0x10, 0, 8, 0x12, 4]);
  const all = modes(WRITABLE, 0x3f);
  assert.equal(all.length, 4 + 12 + 20 + 12);
  assert.equal(all[0], all.length - 1);
  const long = ask(WRITABLE, 0x5a, 8, 0x3f, 0, 0, 0, 0, 0, 255, 0);
  assert.equal(long.readUInt16BE(0), long.length - 2);
  assert.equal(long[3], 0x10);
  assert.deepEqual(long.subarray(8), all.subarray(4));
  const changeable = modes(WRITABLE, 0x48);
  assert.deepEqual(changeable.subarray(6), Buffer.alloc(18));
  assert.equal(refusal(0x1a, 8, 0x0f, 0, 255), Senses.InvalidField);
  assert.equal(refusal(0x1a, 8, 0xc8, 0, 255), Senses.InvalidField);
  assert.equal(refusal(0x1a, 8, 0x08, 1, 255), Senses.InvalidField);
});

test('one LUN, and no sense', () => {
  const luns = ask(WRITABLE, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 255);
  assert.deepEqual([...luns], [0, 0, 0, 8, ...Buffer.alloc(12)]);
  const sense = ask(WRITABLE, 0x03, 0, 0, 0, 255);
  assert.deepEqual([...sense], [0x70, 0, 0, 0, 0, 0, 0, 10, ...Buffer.alloc(10)]);
  assert.equal(refusal(0x03, 1, 0, 0, 255), Senses.InvalidField);
});

test('which operation codes are supported', () => {
  const opcodes = (...rest: number[]) => ask(WRITABLE, 0xa3, 0x0c, ...rest);
  const all = opcodes(0, 0, 0, 0, 0, 0, 0xff, 0xff);
  assert.equal(all.readUInt32BE(0), 8 * Object.keys(Opcodes).length);
  const one = (options: number, opcode: number, action = 0) =>
    opcodes(options, opcode, 0, action, 0, 0, 0, 255);
  assert.deepEqual([...one(1, 0x93).subarray(0, 5)], [0, 3, 0, 16, 0x93]);
  assert.equal(one(1, 0x89)[1], 1);
  assert.equal(one(2, 0x9e, 0x10)[1], 3);
  assert.equal(one(3, 0x9e, 0x11)[1], 1);
  assert.equal(refusal(0xa3, 0x0c, 1, 0x9e, 0, 0x10), Senses.InvalidField);
  assert.equal(refusal(0xa3, 0x0d), Senses.InvalidField);
});

test('sense data are of the fixed format', () => {
  const target = Buffer.alloc(20, 0xff);
  writeSense(target, 1, Senses.UnknownCommand);
  assert.equal(target.toString('hex'), 'ff700005000000000a00000000200000000000ff');
});
