/**
 * Goal: an interrupted command undoes its work, and the leftovers of a killed one are soon removed.
 * Method: Debian's registry and a real containerd, behind a proxy that stalls a transfer while the test ends the command.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { LayoutBuilder, sha256 } from '../support/oci-layout-builder.js';
import { PrivateRegistry, registryUnfit } from '../support/private-registry.js';
import { type Running, runObdconv, startObdconv } from '../support/run-obdconv.js';
import { obdctl, startObdctl } from '../support/run-obdctl.js';
import { StallingProxy } from '../support/stalling-proxy.js';
import { tarOf } from '../support/tar-builder.js';
import { trustCase } from '../support/trust-case.js';

const LAYER_BYTES = 4 << 20;
/** Fits into the buffers of a connection, so that all of it is sent before anything answers. */
const SMALL_LAYER_BYTES = 64 << 10;
/** Such a layer is sent within this time. */
const BODY_SENT_MS = 500;
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** A layout with one image that does not compress. */
function sampleLayout(folder: string, layerBytes = LAYER_BYTES): LayoutBuilder {
  const layout = new LayoutBuilder(join(folder, 'source'));
  const tar = tarOf([{ name: 'big', content: randomBytes(layerBytes) }]);
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
  const layer = { mediaType, blob: gzipSync(tar), diffId: sha256(tar) };
  layout.tag('1', layout.addImage([layer], arch() === 'arm64' ? 'arm64' : 'amd64'));
  return layout;
}

class UploadScene {
  readonly folder = mkdtempSync('/var/tmp/obdi.');
  readonly work = join(this.folder, 'work');
  readonly source: string;
  readonly registry: PrivateRegistry;
  readonly proxy: StallingProxy;
  readonly #started: Running[] = [];

  private constructor(registry: PrivateRegistry, proxy: StallingProxy, layerBytes: number) {
    this.registry = registry;
    this.proxy = proxy;
    mkdirSync(this.work);
    this.source = `oci:${sampleLayout(this.folder, layerBytes).directory}:1`;
  }

  static async with(
    body: (scene: UploadScene) => Promise<string>,
    layerBytes = LAYER_BYTES,
  ): Promise<string> {
    const registry = await PrivateRegistry.start();
    const scene = new UploadScene(registry, await StallingProxy.start(registry.host), layerBytes);
    try {
      return await body(scene);
    } finally {
      for (const { child } of scene.#started) child.kill('SIGKILL');
      await scene.proxy.stop();
      await registry.stop();
      rmSync(scene.folder, { recursive: true });
    }
  }

  arguments(): string[] {
    return ['--work-dir', this.work, this.source, `${this.proxy.host}/app:obd`];
  }

  /** Starts a conversion, and resolves when its upload stalls. */
  async startUploading(): Promise<Running> {
    this.proxy.stalls = 'uploads';
    const stalled = this.proxy.stalled();
    const started = startObdconv(this.arguments());
    this.#started.push(started);
    await Promise.race([stalled, started.finished.then((end) => assert.fail(end.stderr))]);
    return started;
  }

  /** Starts a conversion and ends it with `signal` in the middle of its upload. */
  async endUploading(signal: NodeJS.Signals, afterMs = 0) {
    const { child, finished } = await this.startUploading();
    await setTimeout(afterMs);
    assert.equal(this.sessions().length, 1, 'the registry has no upload');
    child.kill(signal);
    this.proxy.stalls = 'nothing';
    return await finished;
  }

  /** The registry's upload sessions, without deleted ones, of which docker-registry 2.8 keeps the state of a hash. */
  sessions(): string[] {
    const path = 'data/docker/registry/v2/repositories/app/_uploads';
    const uploads = join(this.registry.directory, path);
    return readdirSync(uploads).filter((name) =>
      readdirSync(join(uploads, name)).some((file) => file === 'data' || file === 'startedat'),
    );
  }
}

for (const [signal, expected] of Object.entries(SIGNALS)) {
  trustCase(
    'logging',
    `obdconv, ${signal} during an upload`,
    `status ${expected}, work directory gone, upload deleted at the registry`,
    async () =>
      await UploadScene.with(async (scene) => {
        const { status, stderr } = await scene.endUploading(signal as NodeJS.Signals);
        assert.equal(status, expected, stderr);
        assert.match(stderr, new RegExp(`Interrupted by ${signal}`));
        assert.deepEqual(readdirSync(scene.work), []);
        assert.deepEqual(scene.sessions(), []);
        return `status ${status}, 0 files, 0 uploads`;
      }),
    { skip: registryUnfit || undefined, slow: signal === 'SIGTERM' },
  );
}

trustCase(
  'logging',
  'obdconv, SIGINT when all of a blob is sent and the registry does not answer',
  'ends at once, upload deleted at the registry',
  async () =>
    await UploadScene.with(async (scene) => {
      const startedMs = performance.now();
      const { status, stderr } = await scene.endUploading('SIGINT', BODY_SENT_MS);
      const ms = Math.round(performance.now() - startedMs);
      assert.equal(status, 130, stderr);
      assert.ok(ms < 20_000, `it took ${ms} ms`);
      assert.deepEqual(scene.sessions(), []);
      return `status 130, 0 uploads`;
    }, SMALL_LAYER_BYTES),
  { skip: registryUnfit || undefined },
);

trustCase(
  'logging',
  'obdconv, killed during an upload, then run again',
  'the second run removes work directory and upload; a third that runs beside it keeps its own',
  async () =>
    await UploadScene.with(async (scene) => {
      await scene.endUploading('SIGKILL');
      assert.equal(readdirSync(scene.work).length, 1);
      assert.equal(scene.sessions().length, 1);
      const beside = await scene.startUploading();
      assert.equal(readdirSync(scene.work).length, 1, 'debris is left');
      assert.equal(scene.sessions().length, 1, 'the upload of the killed run is left');
      scene.proxy.stalls = 'nothing';
      const again = await runObdconv(scene.arguments());
      assert.equal(again.status, 0, again.stderr);
      assert.equal(readdirSync(scene.work).length, 1, 'a run that is alive lost its directory');
      beside.child.kill('SIGINT');
      assert.equal((await beside.finished).status, 130);
      assert.deepEqual(readdirSync(scene.work), []);
      assert.deepEqual(scene.sessions(), []);
      return 'debris of 1 killed run gone, 1 live run untouched';
    }),
  { skip: registryUnfit || undefined },
);

trustCase(
  'logging',
  'obdctl rpull, SIGHUP and kill -9 during a download',
  'SIGHUP leaves nothing; what kill -9 leaves is gone after the next run',
  async () => {
    const containerd = await PrivateContainerd.start();
    const folder = mkdtempSync('/var/tmp/obdi.');
    const proxy = await StallingProxy.start(containerd.registry);
    try {
      const layout = sampleLayout(folder);
      await containerd.push(`${layout.directory}:1`, 'app:1');
      const other = await containerd.push(`${sampleLayout(join(folder, 'b')).directory}:1`, 'b:1');
      const args = (reference: string) => [
        ...['rpull', '--plain-http', '--address', containerd.socket],
        ...['--namespace', containerd.namespace, '--snapshotter', 'overlayfs', reference],
      ];
      const holdings = async () => ({
        leases: rows(await containerd.ctr('leases', 'ls')),
        snapshots: rows(await containerd.ctr('snapshots', '--snapshotter', 'overlayfs', 'ls')),
        ingests: rows(await containerd.ctr('content', 'active')),
      });
      const endPulling = async (signal: NodeJS.Signals) => {
        proxy.stalls = 'downloads';
        const stalled = proxy.stalled();
        const { child, finished } = startObdctl(...args(`${proxy.host}/app:1`));
        await Promise.race([stalled, finished.then((end) => assert.fail(end.stderr))]);
        child.kill(signal);
        proxy.stalls = 'nothing';
        return await finished;
      };
      assert.equal((await endPulling('SIGHUP')).status, 129);
      assert.deepEqual(await holdings(), { leases: 0, snapshots: 0, ingests: 0 });
      await endPulling('SIGKILL');
      const left = await holdings();
      assert.ok(left.leases === 1 && left.snapshots === 1, JSON.stringify(left));
      // Another image, which does not reuse content of the killed run.
      const next = await obdctl(...args(other));
      assert.equal(next.status, 0, next.stderr);
      assert.deepEqual(await holdings(), { leases: 0, snapshots: 1, ingests: 0 });
      return `killed run left ${JSON.stringify(left)}, the next run only its own snapshot`;
    } finally {
      await proxy.stop();
      rmSync(folder, { recursive: true });
      await containerd.stop();
    }
  },
  { skip: unfit || undefined },
);

/** Without the heading. */
function rows(text: string): number {
  return text.split('\n').filter((line) => line !== '').length - 1;
}
