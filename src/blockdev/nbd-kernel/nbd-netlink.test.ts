/**
 * Goal: the add-on says no to arguments that make no sense before the kernel sees them, and hands on what the kernel
 * says as a system error; its sockets tell when their peer is gone.
 * Method: the add-on itself, on any kernel; with nbd, its list of devices as well.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { loadNativeAddon } from '../../io/native-addon.js';
import { closeSocket, isHungUp, openSocketPair } from './nbd-netlink.js';

type Call = (argument?: unknown) => Promise<unknown>;
const addon = loadNativeAddon('nbd-client-napi', 'nbd_client') as Record<
  'connect' | 'reconfigure' | 'disconnect' | 'status',
  Call
>;
const hasModule = existsSync('/sys/module/nbd');
const CONNECT = {
  sockets: [0],
  sizeBytes: 512,
  blockSize: 512,
  serverFlags: 1,
  clientFlags: 0,
  timeoutSeconds: 0,
  deadConnTimeoutSeconds: 0,
  backendIdentifier: 'x',
};

test('arguments of the wrong kind are a bug of the caller, by name', () => {
  assert.throws(() => addon.connect(), TypeError);
  for (const [name, value, kind] of [
    ['sizeBytes', -1, RangeError],
    ['sizeBytes', 2 ** 53, RangeError],
    ['sizeBytes', undefined, TypeError],
    ['blockSize', 0.5, RangeError],
    ['serverFlags', '1', TypeError],
    ['deadConnTimeoutSeconds', Number.NaN, RangeError],
    ['index', 2 ** 31, RangeError],
    ['sockets', 3, TypeError],
    ['sockets', ['3'], TypeError],
    ['sockets', [-1], RangeError],
    ['sockets', new Array(65).fill(0), RangeError],
    ['backendIdentifier', '', RangeError],
    ['backendIdentifier', 'a\0b', RangeError],
    ['backendIdentifier', 'x'.repeat(1025), RangeError],
    ['backendIdentifier', 7, TypeError],
  ] as const) {
    const call = () => addon.connect({ ...CONNECT, [name]: value });
    assert.throws(call, (error) => error instanceof kind && error.message === name, name);
  }
  assert.throws(() => addon.reconfigure({ sockets: [], backendIdentifier: 'x' }), TypeError);
  assert.throws(() => addon.disconnect(), TypeError);
  assert.throws(() => addon.status(-1), RangeError);
});

test('a kernel without nbd is a system error', {
  skip: hasModule && 'this kernel has it',
}, async () => {
  const expected = { code: 'ENOENT', errno: -2, syscall: 'nbd status' };
  await assert.rejects(addon.status(), expected);
  await assert.rejects(addon.connect(CONNECT), { code: 'ENOENT', syscall: 'nbd connect' });
});

test('the kernel lists its devices, and refuses what it does not have', {
  skip: !hasModule && 'this kernel has no nbd, or has not loaded it',
}, async () => {
  const devices = (await addon.status()) as { index: number; connected: boolean }[];
  assert.deepEqual(
    devices.find(({ index }) => index === 0),
    { index: 0, connected: false },
  );
  assert.deepEqual(await addon.status(0), [{ index: 0, connected: false }]);
  assert.deepEqual(await addon.status(4000), []);
  const refused = { code: 'EINVAL', syscall: 'nbd disconnect' };
  await assert.rejects(addon.disconnect(4000), refused);
  await assert.rejects(addon.connect({ ...CONNECT, sockets: [], index: 4000 }), { code: 'EINVAL' });
  await assert.rejects(addon.connect({ ...CONNECT, sockets: [0x7ffffff], index: 0 }), {
    code: 'EBADF',
  });
});

test('isHungUp() tells when the other end of a socket is closed', () => {
  const [ours, theirs] = openSocketPair();
  assert.equal(isHungUp(ours), false);
  closeSocket(theirs);
  assert.equal(isHungUp(ours), true);
  closeSocket(ours);
  assert.throws(() => closeSocket(ours), { code: 'EBADF' });
});
