/**
 * Goal: the structures are byte for byte the kernel's. Method: the offsets of linux/ublk_cmd.h, as numbers.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodeInfo,
  decodeParameters,
  emptyParameters,
  encodeCommand,
  encodeInfo,
  encodeParameters,
  FEATURES,
  States,
} from './ublk-protocol.js';

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

test('a command names its device, no queue, and carries one number', () => {
  const expected = `07000000ffff0000${'00'.repeat(8)}d204000000000000${'00'.repeat(8)}`;
  assert.equal(hex(encodeCommand(7, 1234)), expected);
});

test('the information given when a device is added is read back unchanged', () => {
  const info = {
    deviceId: 0xffffffff,
    state: States.Dead,
    depth: 64,
    ioBytesMax: 262144,
    features: FEATURES,
    owner: 0xdeadbeef,
    name: 0x12345678,
    serverPid: 4321,
  };
  const bytes = encodeInfo(info);
  const head = '0100400000000000' + '00000400' + 'ffffffff' + 'e1100000' + '00000000';
  assert.equal(hex(bytes), `${head}5800000000000000${'78563412efbeadde'}${'00'.repeat(24)}`);
  assert.deepEqual(decodeInfo(bytes), info);
});

test('an image is read-only and cannot be discarded', () => {
  const bytes = encodeParameters({
    sizeBytes: 512 * 2 ** 33,
    ioBytesMax: 262144,
    writable: false,
    zeroBytesMax: 1 << 20,
  });
  const basic = '01000000' + '090c0c0c' + '00020000' + '00000000' + '0000000002000000';
  assert.equal(hex(bytes), `3c00000001000000${basic}${'00'.repeat(8)}${'00'.repeat(20)}`);
  assert.equal(decodeParameters(bytes).writable, false);
  assert.equal(decodeParameters(bytes).sizeBytes, 2 ** 42);
});

test('a disk that can be written has a cache to be flushed, and can be discarded', () => {
  const wanted = { sizeBytes: 1 << 30, ioBytesMax: 131072, writable: true, zeroBytesMax: 1 << 20 };
  const bytes = encodeParameters(wanted);
  const basic = '04000000' + '090c0c0c' + '00010000' + '00000000' + '0000200000000000';
  const discard = '00000000' + '00100000' + '00080000' + '00080000' + '0100' + '0000';
  assert.equal(hex(bytes), `3c00000003000000${basic}${'00'.repeat(8)}${discard}`);
  assert.deepEqual(decodeParameters(bytes), wanted);
});

test('parameters are asked for with the room there is', () => {
  assert.equal(hex(emptyParameters()), `3c000000${'00'.repeat(56)}`);
});
