/**
 * An image of files in a real registry, a daemon that serves it by the fuse transport, and a directory to mount it on with
 * obdctl: for tests of a mounted image that loses its registry, its daemon, or a process.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Device } from '../../src/blockd/blockd-client.js';
import { layerOf } from './block-image.js';
import { BlockdProcess, blockdUnfit } from './blockd-process.js';
import { sha256 } from './oci-layout-builder.js';
import { PrivateRegistry, registryUnfit } from './private-registry.js';
import { type Finished, obdctl } from './run-obdctl.js';
import { mountsIn } from './snapshotter-process.js';

const DISK_BYTES = 64 << 20;
const FILE_BYTES = 8 << 20;
const FILES = ['a', 'b', 'c', 'd'];
/** A file in so many extents that the metadata of its end lies in blocks far behind its start. */
export const SCATTERED = 'scattered';
const PIECES = 2000;
const PIECE_BYTES = 4096;
const PREFIX = 'containerd.io/snapshot/overlaybd/';
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
export const REPOSITORY = 'test/image';

/** Why MountedImage cannot run here. */
export const mountedImageUnfit = blockdUnfit || registryUnfit || undefined;

export class MountedImage {
  readonly directory: string;
  readonly target: string;
  readonly files = new Map<string, Buffer>();
  readonly registry: PrivateRegistry;
  readonly daemon: BlockdProcess;
  /** Digest of the manifest. */
  digest = '';

  private constructor(directory: string, registry: PrivateRegistry, daemon: BlockdProcess) {
    this.directory = directory;
    this.target = join(directory, 'mnt');
    this.registry = registry;
    this.daemon = daemon;
  }

  /** Does not mount it yet. A hook removes everything after the test, which fails if something remains. */
  static async start(t: TestContext, config = ''): Promise<MountedImage> {
    const directory = await mkdtemp('/var/tmp/obdm.');
    const registry = await PrivateRegistry.start();
    const daemon = await BlockdProcess.start(`transport = "fuse"\n${config}`);
    const image = new MountedImage(directory, registry, daemon);
    t.after(() => image.#end());
    mkdirSync(image.target);
    await image.#push();
    return image;
  }

  /** By its tag, by default. */
  get reference(): string {
    return `${this.registry.host}/${REPOSITORY}:obd`;
  }

  async mount(reference = this.reference): Promise<Finished> {
    return await obdctl('mount', reference, this.target, '--blockd', this.daemon.socket);
  }

  async umount(): Promise<Finished> {
    return await obdctl('umount', this.target, '--blockd', this.daemon.socket);
  }

  /** The only device. */
  async device(): Promise<Device> {
    const [device, ...others] = await this.daemon.client.list();
    assert.ok(device !== undefined && others.length === 0);
    return device;
  }

  /** Reads the file through the mount, and compares it. */
  check(name: string): void {
    const read = execFileSync('cat', [join(this.target, name)], { maxBuffer: 2 * FILE_BYTES });
    assert.ok(read.equals(this.files.get(name)!), `${name} has wrong bytes`);
  }

  async assertNothingLeft(): Promise<void> {
    assert.deepEqual(await this.daemon.client.list(), []);
    assert.deepEqual(this.daemon.debris(), []);
    assert.deepEqual(mountsIn(this.directory), []);
    assert.ok(!existsSync(join(this.daemon.directory, 'mounts')));
  }

  async #push(): Promise<void> {
    for (const name of FILES) this.files.set(name, randomBytes(FILE_BYTES));
    const content = join(this.directory, 'content');
    mkdirSync(content);
    for (const [name, bytes] of this.files) writeFileSync(join(content, name), bytes);
    const scattered = openSync(join(content, SCATTERED), 'w');
    for (let i = 0; i < PIECES; i++) {
      writeSync(scattered, randomBytes(PIECE_BYTES), 0, PIECE_BYTES, 2 * i * PIECE_BYTES);
    }
    closeSync(scattered);
    const path = join(this.directory, 'disk');
    writeFileSync(path, '');
    truncateSync(path, DISK_BYTES);
    execFileSync('mkfs.ext4', ['-q', '-O', '^has_journal', '-d', content, path]);
    const layer = layerOf(readFileSync(path), () => true);
    const digest = await this.registry.push(REPOSITORY, layer);
    const rootfs = { type: 'layers', diff_ids: [digest] };
    const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs }));
    const annotations = {
      [`${PREFIX}version`]: '0.1.0',
      [`${PREFIX}blob-digest`]: digest,
      [`${PREFIX}blob-size`]: `${layer.length}`,
      [`${PREFIX}blob-fs-type`]: 'ext4',
    };
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST_TYPE,
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: await this.registry.push(REPOSITORY, config),
        size: config.length,
      },
      layers: [
        {
          mediaType: 'application/vnd.oci.image.layer.v1.tar',
          digest,
          size: layer.length,
          annotations,
        },
      ],
    });
    const url = `http://${this.registry.host}/v2/${REPOSITORY}/manifests/obd`;
    const headers = { 'content-type': MANIFEST_TYPE };
    const { status } = await fetch(url, { method: 'PUT', headers, body: manifest });
    assert.equal(status, 201);
    this.digest = sha256(Buffer.from(manifest));
  }

  async #end(): Promise<void> {
    try {
      await this.assertNothingLeft();
      await this.daemon.stop();
    } finally {
      await this.daemon.end('SIGKILL');
      await this.registry.stop();
      await rm(this.directory, { recursive: true });
    }
  }
}
