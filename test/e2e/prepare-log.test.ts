/**
 * Goal: at `log_level = "debug"`, the log of obd-snapshotter tells what each Prepare checked and decided, why, and how long
 * it took; each line is bounded, no login is in it, and at the default level the log has none of these lines.
 * Method: the real daemons, a containerd with two fetched manifests, a registry that wants a login, and an image from
 * obdconv. The log of the process is read as JSON lines.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { chainIdOn } from '../../src/oci/chain-id.js';
import { BlockdProcess, blockdUnfit } from '../support/blockd-process.js';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { ForgedImages } from '../support/forged-image.js';
import { LoopbackRegistry } from '../support/loopback-registry.js';
import { unfit as noRoot, SnapshotterProcess } from '../support/snapshotter-process.js';
import { storeManifest } from '../support/stored-manifest.js';

const PASSWORD = 'pa55-of-the-test';
const AUTH = Buffer.from(`ann:${PASSWORD}`).toString('base64');
const NAMESPACE = 'testsuite';
/** The longest line of a Prepare: text of clients is cut at 300 characters, and a line holds a few of them. */
const LINE_CHARACTERS_MAX = 4_000;

interface Line {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** The log, once it has so many lines of this event: lines arrive after the answers. */
async function linesOf(
  snapshotter: SnapshotterProcess,
  event: string,
  count: number,
): Promise<Line[]> {
  const signal = AbortSignal.timeout(10_000);
  for (;;) {
    const whole = snapshotter.log().split('\n').slice(0, -1);
    const lines = whole.map((line) => JSON.parse(line) as Line);
    if (lines.filter(({ msg }) => msg === event).length >= count) return lines;
    await setTimeout(20, undefined, { signal });
  }
}

describe('log of a Prepare without obd-blockd and containerd', { skip: noRoot }, () => {
  test('debug: a download, an unproved layer and an error are told with their reasons, in bounded lines', async () => {
    const snapshotter = await SnapshotterProcess.start({ more: 'log_level = "debug"\n' });
    const [digest, wrong] = [`sha256:${'a'.repeat(64)}`, `sha256:${'e'.repeat(64)}`];
    const annotations = {
      'containerd.io/snapshot/overlaybd/blob-digest': digest,
      'containerd.io/snapshot/overlaybd/blob-size': '4096',
    };
    assert.equal(await snapshotter.client.prepareLayer(digest, '', annotations), false);
    assert.equal(await snapshotter.client.prepareLayer(wrong, '', annotations), false);
    await snapshotter.client.prepare(`${NAMESPACE}/8/${'k'.repeat(20_000)}`, '');
    await assert.rejects(snapshotter.client.prepare('orphan', 'no-such-parent'));
    const lines = await linesOf(snapshotter, 'prepare finished', 4);
    const decision = lines.find(({ msg }) => msg === 'layer decision made');
    assert.equal(decision?.['outcome'], 'download');
    assert.match(String(decision?.['detail']), /its registry is not known/);
    const warning = lines.find(({ ref, problem }) => ref === wrong && problem !== undefined);
    assert.equal(warning?.level, 'warn');
    const ended = lines.filter(({ msg }) => msg === 'prepare finished');
    assert.deepEqual(
      ended.map(({ outcome }) => outcome),
      ['mounts', 'mounts', 'mounts', 'failed'],
    );
    assert.match(String(ended.at(-1)?.['problem']), /no-such-parent/);
    const longest = Math.max(...lines.map((line) => JSON.stringify(line).length));
    assert.ok(longest < LINE_CHARACTERS_MAX, `a line has ${longest} characters`);
    for (const { name } of await snapshotter.client.list()) await snapshotter.client.remove(name);
    await snapshotter.stop();
  });
});

describe('log of a Prepare', { skip: unfit || blockdUnfit, timeout: 180_000 }, () => {
  let images: ForgedImages;
  let registry: LoopbackRegistry;
  let containerd: PrivateContainerd;
  let blockd: BlockdProcess;
  let login: string;
  const undo: (() => unknown)[] = [];
  let chainIds: string[];
  let layerLabels: Record<string, string>[];

  before(async () => {
    images = await ForgedImages.make();
    undo.push(() => images.remove());
    registry = await LoopbackRegistry.start();
    undo.push(() => registry.close());
    registry.login = { kind: 'bearer', username: 'ann', password: PASSWORD };
    containerd = await PrivateContainerd.start();
    undo.push(() => containerd.stop());
    const manifest = images.manifest('victim');
    for (const { digest } of manifest.layers) registry.addBlob(images.blob(digest));
    await storeManifest(containerd.socket, NAMESPACE, manifest, ['127.0.0.1', 'team/app']);
    const folder = mkdtempSync('/var/tmp/obdl.');
    undo.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'config.json');
    writeFileSync(path, JSON.stringify({ auths: { [registry.host]: { auth: AUTH } } }));
    login = `docker_config = ${JSON.stringify(path)}\n`;
    blockd = await BlockdProcess.start(login);
    undo.push(() => blockd.stop());
    const digests = manifest.layers.map(({ digest }) => digest);
    chainIds = digests.map((_, i) =>
      digests.slice(0, i + 1).reduce((below, each) => chainIdOn(below, each)),
    );
    const reference = `${registry.host}/team/app:1`;
    layerLabels = manifest.layers.map(({ annotations }) => ({
      ...annotations,
      'containerd.io/snapshot/cri.image-ref': reference,
    }));
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  const start = (level: string) =>
    SnapshotterProcess.start({
      blockdSocket: blockd.socket,
      containerdSocket: containerd.socket,
      more: `${login}${level}`,
    });
  const pull = async (snapshotter: SnapshotterProcess) => {
    for (const [i, labels] of layerLabels.entries()) {
      const parent = chainIds[i - 1] ?? '';
      assert.ok(await snapshotter.client.prepareLayer(chainIds[i] ?? '', parent, labels));
    }
  };
  const remove = async (snapshotter: SnapshotterProcess, ...names: readonly string[]) => {
    for (const name of [...names, ...chainIds.toReversed()]) await snapshotter.client.remove(name);
  };

  test('debug: origin, check, decision, device, mount and durations are told, without the login', async () => {
    const snapshotter = await start('log_level = "debug"\n');
    await pull(snapshotter);
    const [base = '', top = ''] = chainIds;
    const one = `${NAMESPACE}/7/one`;
    await snapshotter.client.prepare(one, top);
    await snapshotter.client.prepare(`${NAMESPACE}/8/two`, top);
    const lines = await linesOf(snapshotter, 'prepare finished', 4);
    const text = snapshotter.log();
    const story = (ref: string) =>
      lines.filter((line) => line['ref'] === ref || line['chainId'] === ref).map(({ msg }) => msg);
    assert.deepEqual(story(base), [
      'prepare started',
      'chain ID proved',
      'layer origin looked up',
      'layer decision made',
      'layer served lazily',
    ]);
    const decision = lines.find(({ msg, ref }) => msg === 'layer decision made' && ref === top);
    assert.equal(decision?.['outcome'], 'repoBlobUrl');
    assert.equal(decision?.['registry'], registry.host);
    assert.equal(typeof decision?.['ms'], 'number');
    const mountedOnce = lines.filter(({ msg }) => msg === 'image mounted');
    assert.equal(mountedOnce.length, 1);
    assert.equal(
      lines.filter(({ msg }) => msg === 'image is mounted and its device answers').length,
      1,
    );
    assert.ok(lines.some(({ msg }) => msg === 'registry gives the blob'));
    const ended = lines.filter(({ msg }) => msg === 'prepare finished');
    assert.deepEqual(
      ended.map(({ outcome }) => outcome),
      ['exists', 'exists', 'mounts', 'mounts'],
    );
    assert.ok(ended.every(({ ms }) => typeof ms === 'number' && ms >= 0));
    for (const secret of [PASSWORD, AUTH]) assert.ok(!text.includes(secret), text);
    await remove(snapshotter, `${NAMESPACE}/8/two`, one);
    await snapshotter.stop();
  });

  test('info: the steps of a Prepare are not logged', async () => {
    const snapshotter = await start('');
    await pull(snapshotter);
    await remove(snapshotter);
    const lines = await linesOf(snapshotter, 'layer served lazily', chainIds.length);
    const debug = lines.filter(({ level }) => level === 'debug');
    assert.deepEqual(debug, []);
    await snapshotter.stop();
  });
});
