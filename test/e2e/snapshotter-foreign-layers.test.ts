/**
 * Goal: a layer that cannot be served lazily as its annotations say is downloaded with one warning, or refused by name with
 * a remedy, according to its kind.
 * Method: a Snapshotter in this process, and the files that containerd would have unpacked.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { ErrorCodes, type ObdError } from '../../src/errors.js';
import { LAYER_KINDS } from '../../src/layers/layer-kinds.js';
import { chainIdOn } from '../../src/oci/chain-id.js';
import { REF_LABEL } from '../../src/snapshotter/labels.js';
import { Snapshotter } from '../../src/snapshotter/snapshotter.js';
import { ZFILE_MAGIC } from '../../src/zfile/zfile-magic.js';
import { LoopDevices } from '../support/snapshotter-loop-devices.js';
import { unfit } from '../support/snapshotter-process.js';

const ANNOTATION = 'containerd.io/snapshot/overlaybd';
const digestOf = (name: string) => `sha256:${name.repeat(64)}`;
const BASE = digestOf('a');
const blob = (name: string) => ({
  [`${ANNOTATION}/blob-digest`]: digestOf(name),
  [`${ANNOTATION}/blob-size`]: '4096',
});

let directory: string;
let root: string;
let devices: LoopDevices;
let snapshotter: Snapshotter;
let warnings: string[];

const request = (key: string, parent = '', labels = {}) => ({
  key,
  parent,
  labels,
  namespace: 'ns',
});
const rejects = (call: Promise<unknown>, code: string, message = /./) =>
  assert.rejects(call, (error: ObdError) => {
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });

describe('layers of other kinds', { skip: unfit }, () => {
  beforeEach(async () => {
    directory = mkdtempSync('/var/tmp/obdk.');
    root = join(directory, 'root');
    devices = new LoopDevices();
    warnings = [];
    const log = {
      debug: () => {},
      info: () => {},
      warn: (_fields: object, message: string) => void warnings.push(message),
      error: (_fields: object, message: string) => void warnings.push(message),
    };
    const repoBlobUrl = 'http://localhost:5000/v2/app/blobs';
    const locator = {
      origin: async () => ({
        registry: 'localhost:5000',
        repoBlobUrl: async () => repoBlobUrl,
        hasNamespaceLogin: async () => false,
      }),
      layerOfChain: async () => ({ annotations: blob('b') }),
      expectStart: async () => {},
    };
    const dependencies = { root, kinds: LAYER_KINDS, devices, locator, log };
    snapshotter = await Snapshotter.open({ ...dependencies, shareBetweenNamespaces: true });
  });
  afterEach(async () => {
    for (const { name } of snapshotter.list(() => true).toReversed()) {
      await snapshotter.remove(name);
    }
    await snapshotter.cleanup();
    snapshotter.close();
    devices.remove();
    rmSync(directory, { recursive: true });
  });

  test('a layer with unusable annotations is downloaded', async () => {
    const upper = `sha256:${'A'.repeat(64)}`;
    for (const [i, extra] of [
      { [`${ANNOTATION}/blob-size`]: '-1' },
      { [`${ANNOTATION}/blob-digest`]: 'sha256:../../etc' },
      { [`${ANNOTATION}/blob-digest`]: upper },
      { [`${ANNOTATION}/blob-digest`]: `sha512:${'a'.repeat(128)}` },
      { [`${ANNOTATION}/blob-fs-type`]: 'btrfs' },
    ].entries()) {
      const labels = { ...blob('a'), ...extra, [REF_LABEL]: BASE };
      const key = `extract-${i} ${BASE}`;
      const [mount] = await snapshotter.prepare(request(key, '', labels));
      assert.equal(mount?.type, 'bind');
      writeFileSync(join(mount?.source ?? '', 'overlaybd.commit'), ZFILE_MAGIC);
      await snapshotter.commit(BASE, key, labels);
      assert.equal(snapshotter.stat(BASE).layer.type, 'blocks');
      assert.deepEqual(warnings.splice(0), ['layer annotations unusable, containerd downloads it']);
      await snapshotter.remove(BASE);
    }
  });

  test('a kind of layer that no download makes usable is refused by name', async () => {
    for (const extra of [
      { [`${ANNOTATION}/version`]: '0.1.0-turbo.ociv1' },
      { [`${ANNOTATION}/version`]: '0.1.0-fastoci' },
      { [`${ANNOTATION}/turbo-oci/target-digest`]: BASE },
    ]) {
      const asked = request('k', '', { ...blob('a'), ...extra, [REF_LABEL]: BASE });
      const words = /layer sha256:a+ .*TurboOCI.*original image/;
      await rejects(snapshotter.prepare(asked), ErrorCodes.Unsupported, words);
    }
  });

  test('a TurboOCI layer that was announced to nobody is refused at its Commit', async () => {
    const key = `extract-1 ${BASE}`;
    const [mount] = await snapshotter.prepare(request(key));
    for (const name of ['.turbo.ociv1', 'ext4.fs.meta', 'gzip.meta']) {
      writeFileSync(join(mount?.source ?? '', name), ZFILE_MAGIC);
    }
    const words = /layer "sha256:.*TurboOCI.*pull the original image/;
    await rejects(snapshotter.commit(BASE, key, {}), ErrorCodes.Unsupported, words);
    // A layer with a file of that name among others is a plain one.
    for (const name of ['bin', 'etc']) writeFileSync(join(mount?.source ?? '', name), '');
    await snapshotter.commit(BASE, key, {});
    assert.equal(snapshotter.stat(BASE).layer.type, 'files');
  });

  test('a layer of unknown version is downloaded, and served if its format is known', async () => {
    const labels = { ...blob('a'), [`${ANNOTATION}/version`]: '0.2.0', [REF_LABEL]: BASE };
    const key = `extract-1 ${BASE}`;
    const [mount] = await snapshotter.prepare(request(key, '', labels));
    assert.equal(mount?.type, 'bind');
    const file = join(mount?.source ?? '', 'overlaybd.commit');
    writeFileSync(file, 'a format of the future');
    const words = /layer "sha256:.*unknown format; update obd-ts, or convert/;
    await rejects(snapshotter.commit(BASE, key, labels), ErrorCodes.Unsupported, words);
    writeFileSync(file, ZFILE_MAGIC);
    await snapshotter.commit(BASE, key, labels);
    assert.equal(snapshotter.stat(BASE).layer.type, 'blocks');
  });

  test('an overlaybd layer on a plain one is refused by name, of any version', async () => {
    await snapshotter.prepare(request('k'));
    await snapshotter.commit('plain', 'k', {});
    const labels = { ...blob('b'), [REF_LABEL]: BASE };
    const words = /overlaybd layer "\S+.*" on "plain".*convert the whole image/;
    const lazily = snapshotter.prepare(request('k', 'plain', labels));
    await rejects(lazily, ErrorCodes.FailedPrecondition, words);
    const newer = { ...labels, [`${ANNOTATION}/version`]: '0.2.0' };
    const key = `extract-1 ${BASE}`;
    await snapshotter.prepare(request(key, 'plain', newer));
    const { id } = snapshotter.stat(key);
    writeFileSync(join(root, `snapshots/${id}/fs/overlaybd.commit`), ZFILE_MAGIC);
    await rejects(snapshotter.commit(BASE, key, newer), ErrorCodes.FailedPrecondition, words);
  });

  test('a link in a plain layer does not make it an overlaybd layer', async () => {
    await snapshotter.prepare(request('k'));
    const files = join(root, 'snapshots/1/fs');
    writeFileSync(join(directory, 'elsewhere'), ZFILE_MAGIC);
    execFileSync('ln', ['-s', join(directory, 'elsewhere'), join(files, 'overlaybd.commit')]);
    await snapshotter.commit('files', 'k', {});
    assert.equal(snapshotter.stat('files').layer.type, 'files');
  });

  test('on an image, a layer of unknown version is downloaded with one warning', async () => {
    const base = { ...blob('a'), [REF_LABEL]: BASE };
    await rejects(snapshotter.prepare(request('k', '', base)), ErrorCodes.AlreadyExists);
    const top = chainIdOn(BASE, digestOf('b'));
    const labels = { ...blob('b'), [`${ANNOTATION}/version`]: '0.2.0', [REF_LABEL]: top };
    const key = `extract-1 ${top}`;
    await snapshotter.prepare(request(key, BASE, labels));
    assert.deepEqual(warnings, ['layer annotations unusable, containerd downloads it']);
    const { id } = snapshotter.stat(key);
    writeFileSync(join(root, `snapshots/${id}/fs/overlaybd.commit`), ZFILE_MAGIC);
    await snapshotter.commit(top, key, labels);
    assert.equal(snapshotter.stat(top).layer.type, 'blocks');
  });
});
