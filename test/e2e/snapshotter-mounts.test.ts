/**
 * Goal: overlaybd layers become snapshots without bytes, their image one device and one mount for any number of
 * containers, and failures on the way leave nothing behind.
 * Method: a Snapshotter in this process, reopened on the same directory, with real mounts of real loop devices in place of
 * the daemon (only these can fail on demand).
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import type { LayerDescription } from '../../src/layers/layer-kind.js';
import { LAYER_KINDS } from '../../src/layers/layer-kinds.js';
import { chainIdOn } from '../../src/oci/chain-id.js';
import { registryAddress } from '../../src/registry/registry-hosts.js';
import { parseFilters } from '../../src/snapshotter/filter.js';
import { REF_LABEL, SERVED_LABEL } from '../../src/snapshotter/labels.js';
import type { Mount } from '../../src/snapshotter/overlay-mounts.js';
import { Snapshotter } from '../../src/snapshotter/snapshotter.js';
import { ZFILE_MAGIC } from '../../src/zfile/zfile-magic.js';
import { LoopDevices } from '../support/snapshotter-loop-devices.js';
import { mountsIn, unfit } from '../support/snapshotter-process.js';

/** The first bytes of an overlaybd layer that is not compressed. */
const LAYER_MAGIC = Buffer.from('4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a', 'hex');
const ANNOTATION = 'containerd.io/snapshot/overlaybd';
const URL = 'http://localhost:5000/v2/app/blobs';
const blob = (name: string, extra = {}) => ({
  [`${ANNOTATION}/blob-digest`]: `sha256:${name.repeat(64)}`,
  [`${ANNOTATION}/blob-size`]: '4096',
  ...extra,
});

const digestOf = (name: string) => `sha256:${name.repeat(64)}`;
const BASE = digestOf('a');
const TOP = chainIdOn(BASE, digestOf('b'));

let directory: string;
let root: string;
let devices: LoopDevices;
let snapshotter: Snapshotter;
let repoBlobUrl: string | undefined;
let logged: string[];
/** Layers of manifests in containerd's content store, for clients that send no annotations. */
const layersByChain = new Map<string, LayerDescription>();

const say = (fields: object, message: string) =>
  void logged.push(`${message} ${JSON.stringify(fields)}`);
const log = { debug: () => {}, info: say, warn: say, error: say };

async function open(): Promise<void> {
  const locator = {
    origin: async () => ({
      registry: repoBlobUrl === undefined ? undefined : registryAddress(repoBlobUrl),
      repoBlobUrl: async () => repoBlobUrl,
      hasNamespaceLogin: async () => false,
    }),
    layerOfChain: async (chainId: string) => layersByChain.get(chainId),
    expectStart: async () => {},
  };
  snapshotter = await Snapshotter.open({
    root,
    kinds: LAYER_KINDS,
    devices,
    locator,
    shareBetweenNamespaces: true,
    log,
  });
}

/** Resolves when all devices are detached: some seconds after a commit leaves their image unused. */
async function letGo(): Promise<void> {
  const signal = AbortSignal.timeout(20_000);
  while (deviceIds().length > 0) await sleep(50, undefined, { signal });
}

/** As after a kill: close() releases only the database lock, and nothing stays in flight. */
async function reopen(): Promise<void> {
  snapshotter.close();
  await open();
}

const request = (key: string, parent = '', labels = {}) => ({
  key,
  parent,
  labels,
  namespace: 'ns',
});

/** @returns Whether the layer needs no download. */
async function prepareLayer(
  ref: string,
  parent: string,
  labels: Record<string, string>,
): Promise<boolean> {
  try {
    await snapshotter.prepare(request(`extract-1 ${ref}`, parent, { ...labels, [REF_LABEL]: ref }));
    return false;
  } catch (error) {
    assert.equal((error as ObdError).code, ErrorCodes.AlreadyExists, String(error));
    return true;
  }
}

async function remoteImage(): Promise<string> {
  assert.ok(await prepareLayer(BASE, '', blob('a')));
  assert.ok(await prepareLayer(TOP, BASE, blob('b')));
  return TOP;
}

const lowerOf = ([mount]: Mount[]) => {
  const option = mount?.options.find((each) => each.startsWith('lowerdir='));
  return (option?.slice('lowerdir='.length) ?? mount?.source ?? '').split(':');
};
const deviceIds = () =>
  [...devices.attached.keys()].map((id) => id.replace(/^snapshot-[0-9a-f]{8}-/, ''));
const rejects = (call: Promise<unknown>, code: string, message = /./) =>
  assert.rejects(call, (error: ObdError) => {
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });

describe('snapshots', { skip: unfit }, () => {
  beforeEach(async () => {
    directory = mkdtempSync('/var/tmp/obdn.');
    root = join(directory, 'root');
    devices = new LoopDevices();
    repoBlobUrl = URL;
    logged = [];
    await open();
  });
  afterEach(async () => {
    devices.isDown = false;
    devices.failure = undefined;
    // Removing all snapshots, children first, must leave nothing.
    for (const { name } of snapshotter.list(() => true).toReversed())
      await snapshotter.remove(name);
    await snapshotter.cleanup();
    assert.deepEqual(mountsIn(directory), []);
    assert.deepEqual(deviceIds(), []);
    assert.deepEqual(readdirSync(join(root, 'snapshots')), []);
    snapshotter.close();
    devices.remove();
    rmSync(directory, { recursive: true });
  });

  test('a remote layer is committed under its ref, with its labels and no bytes', async () => {
    await remoteImage();
    const { kind, parent, labels, usage } = snapshotter.stat(TOP);
    assert.deepEqual([kind, parent, usage], ['committed', BASE, { sizeBytes: 0, inodes: 0 }]);
    assert.equal(labels[REF_LABEL], TOP);
    assert.equal(labels[SERVED_LABEL], 'lazy');
    assert.equal(devices.made, 0);
    // As for another namespace, or after a lost answer.
    assert.ok(await prepareLayer(TOP, BASE, blob('b')));
    assert.equal(snapshotter.list(() => true).length, 2);
  });

  test('a filter on a label of any name finds no snapshot without it', async () => {
    await remoteImage();
    for (const label of ['missing', 'constructor', 'toString']) {
      assert.deepEqual(snapshotter.list(parseFilters([`labels.${label}`])), [], label);
    }
  });

  test('without the ref label, nothing already exists', async () => {
    await remoteImage();
    const mounts = await snapshotter.prepare(request('k', '', blob('a')));
    assert.equal(mounts[0]?.type, 'bind');
  });

  test('20 containers at once share one device and one mount', async () => {
    const top = await remoteImage();
    const keys = Array.from({ length: 20 }, (_, i) => `c${i}`);
    const prepared = await Promise.all(keys.map((key) => snapshotter.prepare(request(key, top))));
    assert.equal(devices.made, 1);
    assert.equal(mountsIn(directory).length, 1);
    const lowers = new Set(prepared.map((mounts) => lowerOf(mounts).join()));
    assert.equal(lowers.size, 1);
    const [lower = ''] = lowers;
    assert.equal(readFileSync(join(lower, 'etc/hello'), 'utf8'), 'hello\n');
    assert.throws(() => writeFileSync(join(lower, 'x'), ''), { code: 'EROFS' });
    const config = JSON.parse(readFileSync(join(root, 'snapshots/2/block/config.v1.json'), 'utf8'));
    assert.equal(config.repoBlobUrl, URL);
    assert.deepEqual(
      config.lowers.map(({ digest }: { digest: string }) => digest.slice(7, 8)),
      ['a', 'b'],
    );
    assert.equal(statSync(join(root, 'snapshots/2/block/config.v1.json')).mode & 0o777, 0o600);
    assert.equal(snapshotter.stat('c0').labels[SERVED_LABEL], 'lazy');
  });

  test('a view of an image is its mount, read-only', async () => {
    const [mount] = await snapshotter.view(request('v', await remoteImage()));
    assert.deepEqual(mount, {
      type: 'bind',
      source: join(root, 'snapshots/2/block/mountpoint'),
      options: ['ro', 'rbind'],
    });
  });

  test('the image goes with its snapshot, and not before', async () => {
    const top = await remoteImage();
    await snapshotter.prepare(request('c', top));
    await rejects(snapshotter.remove(top), ErrorCodes.FailedPrecondition);
    assert.deepEqual(deviceIds(), ['2']);
    await snapshotter.remove('c');
    assert.deepEqual(deviceIds(), ['2']);
    await snapshotter.remove(top);
    assert.deepEqual([deviceIds(), mountsIn(directory)], [[], []]);
  });

  test('an image that cannot be attached is an error that says which, and leaves nothing', async () => {
    const top = await remoteImage();
    devices.failure = new ObdError(ErrorCodes.Unauthorized, 'the registry wants a login');
    await rejects(
      snapshotter.prepare(request('c', top)),
      ErrorCodes.Unauthorized,
      /"sha256:[0-9a-f]{64}" \(2 layers from http:\/\/localhost:5000\/v2\/app\): the registry wants a login; give obd-blockd credentials/,
    );
    // containerd would read these as an existing snapshot, or a missing parent.
    for (const code of [ErrorCodes.AlreadyExists, ErrorCodes.NotFound]) {
      devices.failure = new ObdError(code, 'blob');
      await rejects(snapshotter.prepare(request('c', top)), ErrorCodes.FailedPrecondition, /blob/);
    }
    devices.failure = undefined;
    devices.isDown = true;
    await rejects(snapshotter.view(request('c', top)), ErrorCodes.Unavailable, /obd-blockd/);
    assert.deepEqual(mountsIn(directory), []);
    assert.deepEqual(readdirSync(join(root, 'snapshots')).sort(), ['1', '2']);
    devices.isDown = false;
    await snapshotter.prepare(request('c', top));
  });

  test('a device without a file system is detached again', async () => {
    const top = await remoteImage();
    const ext4 = join(devices.directory, 'ext4');
    cpSync(ext4, `${ext4}.good`);
    writeFileSync(ext4, Buffer.alloc(4 << 20));
    await rejects(snapshotter.prepare(request('c', top)), ErrorCodes.Io, /Cannot mount/);
    assert.deepEqual([deviceIds(), mountsIn(directory)], [[], []]);
    cpSync(`${ext4}.good`, ext4);
    await snapshotter.prepare(request('c', top));
  });

  test('Mounts makes device and mount again after a reboot', async () => {
    const top = await remoteImage();
    const before = await snapshotter.prepare(request('c', top));
    execFileSync('umount', [join(root, 'snapshots/2/block/mountpoint')]);
    devices.lose();
    await reopen();
    assert.deepEqual(await snapshotter.mounts('c'), before);
    assert.equal(mountsIn(directory).length, 1);
  });

  test('Mounts replaces the mount of a device that died', async () => {
    const top = await remoteImage();
    const before = await snapshotter.prepare(request('c', top));
    const [{ path } = { path: '' }] = devices.attached.values();
    const other = execFileSync(
      'losetup',
      ['--find', '--show', '--read-only', join(devices.directory, 'ext4')],
      { encoding: 'utf8' },
    ).trim();
    for (const [id, device] of devices.attached)
      devices.attached.set(id, { ...device, path: other });
    assert.deepEqual(await snapshotter.mounts('c'), before);
    const [line = ''] = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((each) => each.includes(directory));
    assert.ok(line.startsWith(`${other} `), line);
    execFileSync('losetup', ['--detach', path]);
  });

  test('Remove works while the daemon is down, and the device goes later', async () => {
    const top = await remoteImage();
    await snapshotter.prepare(request('c', top));
    await snapshotter.remove('c');
    devices.isDown = true;
    await snapshotter.remove(top);
    await snapshotter.cleanup();
    assert.deepEqual(deviceIds(), ['2']);
    assert.deepEqual(readdirSync(join(root, 'snapshots')), ['1']);
    devices.isDown = false;
    await snapshotter.cleanup();
    assert.deepEqual(deviceIds(), []);
  });

  test('a start removes orphans, and makes the directories of lazy layers again', async () => {
    const top = await remoteImage();
    await snapshotter.prepare(request('c', top));
    const [own = ''] = devices.attached.keys();
    await devices.attach(own.replace(/2$/, '9'), join(root, 'snapshots/9/block/config.v1.json'));
    await devices.attach('mine', '/elsewhere/snapshots/9/block/config.v1.json');
    snapshotter.close();
    for (const name of ['7', '9/block/mountpoint', 'new-abc/fs']) {
      mkdirSync(join(root, 'snapshots', name), { recursive: true });
    }
    execFileSync('mount', ['-t', 'tmpfs', 'none', join(root, 'snapshots/9/block/mountpoint')]);
    rmSync(join(root, 'snapshots/1'), { recursive: true });
    await open();
    assert.deepEqual(readdirSync(join(root, 'snapshots')).sort(), ['1', '2', '3']);
    assert.equal(mountsIn(directory).length, 1);
    await devices.detach('mine');
    await snapshotter.mounts('c');
    await snapshotter.prepare(request('next', ''));
    assert.equal(snapshotter.stat('next').id, 10);
  });

  test('a start continues past orphans that it cannot remove, and ignores names that are no ids', async () => {
    snapshotter.close();
    const strange = ['new-stuck', '9007199254740991', '1e6', '0x7'];
    const paths = strange.map((name) => join(root, 'snapshots', name));
    const [stuck = ''] = paths;
    for (const path of paths) mkdirSync(join(path, 'fs'), { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', 'none', join(stuck, 'fs')]);
    const inUse = await opendir(join(stuck, 'fs'));
    try {
      await open();
      await snapshotter.prepare(request('next', ''));
      assert.equal(snapshotter.stat('next').id, 1);
      assert.ok(logged.some((line) => line.includes('new-stuck')));
    } finally {
      await inUse.close();
      execFileSync('umount', [join(stuck, 'fs')]);
      for (const path of paths) rmSync(path, { recursive: true });
    }
  });

  test('a layer of an unknown registry is downloaded, with a warning, and served locally', async () => {
    repoBlobUrl = undefined;
    const labels = { ...blob('a'), [REF_LABEL]: BASE };
    const mounts = await snapshotter.prepare(request('k', '', labels));
    const files = join(root, 'snapshots/1/fs');
    assert.deepEqual(mounts, [{ type: 'bind', source: files, options: ['rw', 'rbind'] }]);
    assert.ok(logged.some((line) => /^layer not served lazily.*registry/.test(line)));
    await rejects(
      snapshotter.commit(BASE, 'k', {}),
      ErrorCodes.FailedPrecondition,
      /overlaybd\.commit/,
    );
    writeFileSync(join(files, 'overlaybd.commit'), ZFILE_MAGIC);
    await snapshotter.commit(BASE, 'k', labels);
    assert.equal(snapshotter.stat(BASE).labels[SERVED_LABEL], 'local');
    await snapshotter.prepare(request('c', BASE));
    const config = JSON.parse(readFileSync(join(root, 'snapshots/1/block/config.v1.json'), 'utf8'));
    assert.deepEqual(config.lowers, [{ file: join(files, 'overlaybd.commit') }]);
  });

  test('unpacked layer by layer, an image leaves no device for the layers below its top', async () => {
    let parent = '';
    for (const name of ['one', 'two', 'three']) {
      await snapshotter.prepare(request(`extract ${name}`, parent));
      const files = join(root, 'snapshots', String(snapshotter.stat(`extract ${name}`).id), 'fs');
      writeFileSync(join(files, 'overlaybd.commit'), LAYER_MAGIC);
      await snapshotter.commit(name, `extract ${name}`, {});
      parent = name;
    }
    await letGo();
    assert.deepEqual(mountsIn(directory), []);
    await snapshotter.prepare(request('c', 'three'));
    assert.deepEqual(deviceIds(), ['3']);
  });

  test('a layer that containerd knows to be an overlaybd layer is unpacked without the image below', async () => {
    const top = await remoteImage();
    const chainId = `sha256:${'5'.repeat(64)}`;
    layersByChain.set(chainId, { annotations: blob('6') });
    devices.isDown = true;
    const key = `ns/7/extract-123-abcd ${chainId}`;
    const [mount] = await snapshotter.prepare(request(key, top));
    assert.deepEqual(mount, {
      type: 'bind',
      source: join(root, 'snapshots/3/fs'),
      options: ['rw', 'rbind'],
    });
    writeFileSync(join(root, 'snapshots/3/fs/overlaybd.commit'), ZFILE_MAGIC);
    await snapshotter.commit('local', key, {});
    devices.isDown = false;
    await snapshotter.prepare(request('c', 'local'));
    const config = JSON.parse(readFileSync(join(root, 'snapshots/3/block/config.v1.json'), 'utf8'));
    assert.deepEqual(
      config.lowers.map((lower: object) => Object.keys(lower).join()),
      ['digest,size', 'digest,size', 'file'],
    );
  });

  test('plain layers stand on an image, and not the other way round', async () => {
    const top = await remoteImage();
    await snapshotter.prepare(request('k', top));
    await snapshotter.commit('files', 'k', {});
    await letGo();
    assert.equal(snapshotter.stat('files').labels[SERVED_LABEL], 'overlayfs');
    const mounts = await snapshotter.prepare(request('c', 'files'));
    assert.deepEqual(lowerOf(mounts), [
      join(root, 'snapshots/3/fs'),
      join(root, 'snapshots/2/block/mountpoint'),
    ]);
    assert.equal(snapshotter.stat('c').labels[SERVED_LABEL], 'lazy');
    const onFiles = { ...blob('c'), [REF_LABEL]: 'sha256:c' };
    await rejects(
      snapshotter.prepare(request('x', 'files', onFiles)),
      ErrorCodes.FailedPrecondition,
      /plain layer/,
    );
  });

  test('the root directory of a container is that of its image', async () => {
    const mounts = await snapshotter.prepare(request('c', await remoteImage()));
    const [lower = ''] = lowerOf(mounts);
    const { mode, uid, gid } = statSync(join(root, 'snapshots/3/fs'));
    const image = statSync(lower);
    assert.deepEqual([mode, uid, gid], [image.mode, image.uid, image.gid]);
  });

  test('a trace that containerd unpacked is no layer of the disk, and anything else is', async () => {
    const trace = blob('c', { [`${ANNOTATION}/acceleration-layer`]: 'yes' });
    const chainId = chainIdOn(TOP, digestOf('c'));
    const key = `extract-1 ${chainId}`;
    await remoteImage();
    for (const [bytes, type] of [
      ['\x20\x18\xef\xc2 and reads', 'trace'],
      [ZFILE_MAGIC.toString('latin1'), 'files'],
    ] as const) {
      await snapshotter.prepare(request(key, TOP, { ...trace, [REF_LABEL]: chainId }));
      const { id } = snapshotter.stat(key);
      writeFileSync(join(root, `snapshots/${id}/fs/trace`), bytes, 'latin1');
      await snapshotter.commit(chainId, key, {});
      const { layer: recorded } = snapshotter.stat(chainId);
      assert.equal(recorded.type, type);
      await snapshotter.prepare(request('c', chainId));
      const image = type === 'trace' ? id : 2;
      const path = join(root, `snapshots/${image}/block/config.v1.json`);
      const { lowers, accelerationLayer } = JSON.parse(readFileSync(path, 'utf8'));
      const kinds = lowers.map(({ kind }: { kind?: string }) => kind);
      const isTrace = type === 'trace';
      const topKind = isTrace ? ['overlaybd-trace'] : [];
      assert.deepEqual(kinds, [undefined, undefined, ...topKind]);
      assert.equal(accelerationLayer, isTrace || undefined);
      if (recorded.type === 'trace') {
        assert.deepEqual(recorded.lower, {
          ...{ digest: digestOf('c'), size: 4096, kind: 'overlaybd-trace', repoBlobUrl: URL },
        });
      }
      for (const name of ['c', chainId]) await snapshotter.remove(name);
    }
  });
});
