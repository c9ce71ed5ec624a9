/**
 * Goal: `obdctl mount` shows the files of an image from every kind of source, `obdctl devices` shows its cost, `obdctl
 * umount` undoes it; an image that cannot be mounted is refused with its reason, and leaves nothing.
 * Method: an ext4 made by mke2fs, as one layer in an OCI layout and, copied there by skopeo, in a real registry; the
 * real daemon; afterwards the test looks for mounts, devices and files.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { layerOf } from '../support/block-image.js';
import { BlockdProcess, blockdUnfit } from '../support/blockd-process.js';
import { LayoutBuilder, sha256 } from '../support/oci-layout-builder.js';
import { PrivateRegistry, registryUnfit } from '../support/private-registry.js';
import { obdctl } from '../support/run-obdctl.js';
import { mountsIn } from '../support/snapshotter-process.js';

const DISK_BYTES = 32 << 20;
const PREFIX = 'containerd.io/snapshot/overlaybd/';
const unfit = blockdUnfit || registryUnfit || skopeoUnfit();

const files = new Map<string, Buffer>();
let directory: string;
let target: string;
let layout: LayoutBuilder;
let layer: Buffer;
let registry: PrivateRegistry;
let daemon: BlockdProcess;

const mount = async (image: string, ...more: string[]) =>
  await obdctl('mount', image, target, '--blockd', daemon.socket, ...more);
const umount = async () => await obdctl('umount', target, '--blockd', daemon.socket);

function diskOfFiles(): Buffer {
  const content = join(directory, 'content');
  mkdirSync(content);
  for (const [name, bytes] of files) writeFileSync(join(content, name), bytes);
  const path = join(directory, 'disk');
  writeFileSync(path, '');
  truncateSync(path, DISK_BYTES);
  execFileSync('mkfs.ext4', ['-q', '-O', '^has_journal', '-d', content, path]);
  return readFileSync(path);
}

function addImage(tag: string, annotations: Readonly<Record<string, string>>): void {
  const mediaType = 'application/vnd.oci.image.layer.v1.tar';
  layout.tag(
    tag,
    layout.addImage([{ mediaType, blob: layer, diffId: sha256(layer), annotations }]),
  );
  const to = `docker://${registry.host}/test/image:${tag}`;
  const from = `oci:${layout.directory}:${tag}`;
  const options = [
    '--insecure-policy',
    'copy',
    '--quiet',
    '--preserve-digests',
    '--dest-tls-verify=false',
  ];
  execFileSync('skopeo', [...options, from, to]);
}

function assertShown(): void {
  for (const [name, bytes] of files) {
    assert.ok(readFileSync(join(target, name)).equals(bytes), name);
  }
}

async function assertNothingLeft(): Promise<void> {
  assert.deepEqual(await daemon.client.list(), []);
  assert.deepEqual(daemon.debris(), []);
  assert.deepEqual(mountsIn(dirname(target)), []);
  assert.ok(!existsSync(join(daemon.directory, 'mounts')));
}

describe('obdctl mount', { skip: unfit, timeout: 120_000 }, () => {
  before(async () => {
    directory = await mkdtemp('/var/tmp/obdc.');
    target = join(directory, 'a place');
    mkdirSync(target);
    files.set('small', Buffer.from('hello\n'));
    files.set('large', randomBytes(12 << 20));
    layer = layerOf(diskOfFiles(), () => true);
    layout = new LayoutBuilder(join(directory, 'layout'));
    registry = await PrivateRegistry.start();
    daemon = await BlockdProcess.start();
    const digest = `sha256:${createHash('sha256').update(layer).digest('hex')}`;
    const annotations = {
      [`${PREFIX}version`]: '0.1.0',
      [`${PREFIX}blob-digest`]: digest,
      [`${PREFIX}blob-size`]: `${layer.length}`,
      [`${PREFIX}blob-fs-type`]: 'ext4',
    };
    addImage('obd', annotations);
    addImage('turbo', { ...annotations, [`${PREFIX}version`]: '0.1.0-turbo.ociv1' });
    addImage('xyzfs', { ...annotations, [`${PREFIX}blob-fs-type`]: 'xyzfs' });
    addImage('plain', {});
  });
  after(async () => {
    await daemon.stop();
    await registry.stop();
    await rm(directory, { recursive: true });
  });
  afterEach(assertNothingLeft);

  test('from a registry, fetching what is read', async () => {
    const { status, stdout, stderr } = await mount(`${registry.host}/test/image:obd`);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /\/dev\/[a-z0-9]+, 32\.0 MiB in 1 layers/);
    assert.equal(readFileSync(join(target, 'small'), 'utf8'), 'hello\n');
    const listed = await obdctl('devices', '--blockd', daemon.socket, '--json');
    const [device] = JSON.parse(listed.stdout);
    assert.ok(device.fetchedBytes < layer.length / 2, listed.stdout);
    assertShown();
    const table = await obdctl('devices', '--blockd', daemon.socket);
    assert.match(table.stdout, /^ID +DEVICE +TRANSPORT +STATE/);
    assert.match(table.stdout, new RegExp(`^New devices use ${device.transport}\\.$`, 'm'));
    assert.match(
      table.stdout,
      new RegExp(
        `${device.id} +${device.path} +${device.transport} +attached +32\\.0 MiB +1 +0 of 1 `,
      ),
    );
    const again = await mount(`${registry.host}/test/image:obd`);
    assert.deepEqual([again.status, /is mounted there/.test(again.stderr)], [1, true]);
    assert.deepEqual(await umount(), { status: 0, stdout: '', stderr: '' });
  });

  test('from an OCI layout and from an image config', async () => {
    const fromLayout = await mount(`oci:${layout.directory}:obd`);
    assert.equal(fromLayout.status, 0, fromLayout.stderr);
    assertShown();
    await umount();
    const config = join(directory, 'config.v1.json');
    writeFileSync(config, JSON.stringify({ lowers: [{ file: layout.blobPath(sha256(layer)) }] }));
    const fromConfig = await mount(config);
    assert.equal(fromConfig.status, 0, fromConfig.stderr);
    assertShown();
    await umount();
  });

  test('refuses a missing image and one that is not overlaybd, with the reason', async () => {
    const image = (tag: string) => `${registry.host}/test/image:${tag}`;
    const noise = join(directory, 'noise.json');
    const path = join(directory, 'noise');
    writeFileSync(
      path,
      layerOf(randomBytes(1 << 20), () => true),
    );
    writeFileSync(noise, JSON.stringify({ lowers: [{ file: path }] }));
    for (const [what, expected] of [
      [image('plain'), /no overlaybd image, as layer 1 of 1, sha256:.* convert it with obdconv/],
      [image('turbo'), /0\.1\.0-turbo\.ociv1/],
      [image('xyzfs'), /"xyzfs"/],
      [image('none'), /none/],
      ['oci:/nowhere', /\/nowhere/],
      ['./none.json', /none\.json/],
      [noise, /Cannot mount \/dev\/loop.*the log of obd-blockd says why/],
    ] as const) {
      const { status, stderr } = await mount(what);
      assert.deepEqual([status, expected.test(stderr)], [1, true], `${what}: ${stderr}`);
      assert.equal(stderr.trimEnd().includes('\n'), false, stderr);
      await assertNothingLeft();
    }
    const nowhere = await obdctl('mount', noise, '/nowhere', '--blockd', daemon.socket);
    assert.deepEqual([nowhere.status, /"\/nowhere"/.test(nowhere.stderr)], [2, true]);
    const file = await obdctl('mount', noise, path, '--blockd', daemon.socket);
    assert.deepEqual([file.status, /not a directory/.test(file.stderr)], [2, true]);
    const silent = await obdctl('mount', noise, target, '--blockd', join(directory, 'x.sock'));
    assert.deepEqual([silent.status, /Cannot reach obd-blockd/.test(silent.stderr)], [1, true]);
  });

  test('unmounts only what it mounted, also when the daemon is gone or has come back', async () => {
    const nothing = await umount();
    assert.deepEqual([nothing.status, /has nothing there/.test(nothing.stderr)], [1, true]);
    assert.equal((await mount(`${registry.host}/test/image:obd`)).status, 0);
    await daemon.end('SIGKILL');
    const without = await umount();
    assert.equal(without.status, 0);
    assert.match(without.stderr, /obd-blockd is not running/);
    await daemon.restart();
    await assertNothingLeft();
    assert.equal((await mount(`${registry.host}/test/image:obd`)).status, 0);
    const busy = await obdctl('umount', target, '--blockd', join(directory, 'x.sock'));
    assert.equal(busy.status, 1);
    assertShown();
    assert.equal((await umount()).status, 0);
  });
});

function skopeoUnfit(): string | false {
  try {
    execFileSync('skopeo', ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'skopeo is not installed';
  }
}
