/**
 * Goal: a container gets command, user, mounts and network of its options, and keeps containerd's defaults for the rest.
 * Method: a small default config.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ErrorCodes } from '../../errors.js';
import { containerSpec, parseMount } from './container-spec.js';

const BASE = JSON.stringify({
  ociVersion: '1.0.2',
  process: { cwd: '/', noNewPrivileges: true },
  root: { path: 'rootfs' },
  mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
  linux: { cgroupsPath: '/default', namespaces: [{ type: 'pid' }, { type: 'network' }] },
});
const OPTIONS = {
  command: { argv: ['app', '-v'], env: new Map([['A', 'b=c']]), cwd: '/srv' },
  user: { uid: 1, gid: 2, additionalGids: [3] },
  root: '/mnt/root',
  mounts: [parseMount('type=bind,src=/a,dst=/b,options=rbind:ro')],
  isInHostNetwork: false,
  cgroupsPath: '/ns/id',
};

describe('containerSpec()', () => {
  test('sets what the options say and keeps the rest', () => {
    const spec = JSON.parse(containerSpec(BASE, OPTIONS));
    assert.equal(spec.ociVersion, '1.0.2');
    assert.deepEqual(spec.root, { path: '/mnt/root', readonly: false });
    assert.deepEqual(spec.process, {
      cwd: '/srv',
      noNewPrivileges: true,
      terminal: false,
      args: ['app', '-v'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'A=b=c'],
      user: { uid: 1, gid: 2, additionalGids: [3] },
    });
    assert.deepEqual(spec.mounts[1], {
      type: 'bind',
      source: '/a',
      destination: '/b',
      options: ['rbind', 'ro'],
    });
    assert.equal(spec.linux.cgroupsPath, '/ns/id');
    assert.deepEqual(spec.linux.namespaces, [{ type: 'pid' }, { type: 'network' }]);
  });

  test("in the host's network it has no network namespace, and the host's resolver", () => {
    const spec = JSON.parse(containerSpec(BASE, { ...OPTIONS, isInHostNetwork: true }));
    assert.deepEqual(spec.linux.namespaces, [{ type: 'pid' }]);
    const destinations = spec.mounts.map((each: { destination: string }) => each.destination);
    assert.deepEqual(destinations, ['/proc', '/etc/hosts', '/etc/resolv.conf', '/b']);
  });

  test('refuses a default config of another form', () => {
    for (const base of ['', '[]', '{"process":{},"root":{}}']) {
      assert.throws(() => containerSpec(base, OPTIONS), { code: ErrorCodes.Unsupported });
    }
  });
});

test('parseMount() names what is wrong with a mount, and the form to write', () => {
  const wrong: ReadonlyArray<readonly [string, RegExp]> = [
    ['/a:/b', /"\/a:\/b" is of no known key/],
    ['type=bind,src=/a', /type, src or dst is missing/],
    ['src=/a,dst=/b', /type, src or dst is missing/],
    ['type=bind,src=,dst=/b', /type, src or dst is missing/],
    ['type=bind,src=/a,dst=b', /: b is no absolute path/],
    ['type=bind,src=a,dst=/b', /: a is no absolute path/],
    ['type=bind,src=/a,dst=/b,readonly', /"readonly" is of no known key/],
    ['type=bind,src=/a,dst=/b,ro=1', /"ro=1" is of no known key/],
  ];
  for (const [text, message] of wrong) {
    assert.throws(() => parseMount(text), { code: ErrorCodes.InvalidArgument, message }, text);
    assert.throws(() => parseMount(text), { message: /write it as type=bind,src=/ }, text);
  }
});
