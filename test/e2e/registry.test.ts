/**
 * Goal: obdconv converts an image from a password-protected registry into the same registry, where ranges
 * of it can be read; without the password, or with a wrong one, nothing changes and the error names the
 * remedy.
 * Method: Debian's docker-registry with htpasswd. skopeo pushes the source, if it is installed; the result
 * must have the digests of a conversion between directories.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { DockerCredentials } from '../../src/registry/docker-credentials.js';
import { RegistryClient } from '../../src/registry/registry-client.js';
import { RegistryHosts } from '../../src/registry/registry-hosts.js';
import {
  blobPath,
  type Descriptor,
  LayoutBuilder,
  readJson,
  sha256,
  taggedManifest,
} from '../support/oci-layout-builder.js';
import { PrivateRegistry, registryUnfit } from '../support/private-registry.js';
import { readRange } from '../support/read-range.js';
import { runObdconv } from '../support/run-obdconv.js';
import { tarOf } from '../support/tar-builder.js';

/** `ann` and the bcrypt of PASSWORD, at its lowest cost. */
const HTPASSWD = 'ann:$2b$05$abcdefghijklmnopqrstuu2IQKBjLaH48D/32j2ZV8pOQYlZG3roe';
const PASSWORD = 'secret-of-ann';
const noSkopeo =
  spawnSync('skopeo', ['--version']).status === 0
    ? false
    : 'cannot run here: skopeo is not installed';

describe('docker-registry with a password', { skip: registryUnfit || noSkopeo }, () => {
  const root = mkdtempSync(join(tmpdir(), 'obd-registry-e2e-'));
  const work = join(root, 'work');
  const layout = new LayoutBuilder(join(root, 'source'));
  let registry: PrivateRegistry;

  function configWith(password: string): string {
    const directory = mkdtempSync(join(root, 'docker-'));
    const auth = Buffer.from(`ann:${password}`).toString('base64');
    const config = { auths: { [registry.host]: { auth } } };
    writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
    return directory;
  }

  const convert = (source: string, target: string, dockerConfig: string) =>
    runObdconv(['--work-dir', work, source, target], { DOCKER_CONFIG: dockerConfig });

  before(async () => {
    registry = await PrivateRegistry.start(HTPASSWD);
    mkdirSync(work);
    const layers = ['base', 'top'].map((name) => {
      const content = Buffer.alloc(2 << 20, name);
      const tar = tarOf([{ name, content }]);
      const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
      return { mediaType, blob: gzipSync(tar), diffId: sha256(tar) };
    });
    layout.tag('app', layout.addImage(layers));
    const destination = `docker://${registry.host}/team/app:plain`;
    const flags = ['--dest-tls-verify=false', '--dest-creds', `ann:${PASSWORD}`];
    const copied = spawnSync(
      'skopeo',
      ['copy', '--quiet', ...flags, `oci:${layout.directory}:app`, destination],
      { encoding: 'utf8' },
    );
    assert.equal(copied.status, 0, copied.stderr);
  });
  after(async () => {
    await registry.stop();
    rmSync(root, { recursive: true });
  });

  test('the image is converted from there to there', async () => {
    const config = configWith(PASSWORD);
    const name = `${registry.host}/team/app`;
    const first = await convert(`docker://${name}:plain`, `docker://${name}:obd`, config);
    assert.equal(first.status, 0, first.stderr);
    assert.match(first.stderr, /Layer 2\/2 .*, written/);
    assert.deepEqual(readdirSync(work), []);

    const target = join(root, 'target');
    const local = await convert(`oci:${layout.directory}:app`, `oci:${target}:obd`, config);
    assert.equal(local.stdout, first.stdout, 'the same digest, wherever from and to');

    const again = await convert(`${name}:plain`, `${name}:again`, config);
    assert.equal(again.stdout, first.stdout);
    assert.match(again.stderr, /Layer 2\/2 .*, already there/);

    const { digest } = taggedManifest(target, 'obd');
    const { layers } = readJson<{ layers: Descriptor[] }>(blobPath(target, digest));
    const layer = layers[1] as Descriptor;
    process.env['DOCKER_CONFIG'] = config;
    const credentials = new DockerCredentials();
    delete process.env['DOCKER_CONFIG'];
    // As containerd's labels name it: without the port.
    const hosts = new RegistryHosts([], { '127.0.0.1': registry.host });
    const client = new RegistryClient({ hosts, credentials });
    const ranges = await client.blobRanges('127.0.0.1', 'team/app', layer.digest, undefined);
    assert.equal(ranges.sizeBytes, layer.size);
    const piece = new Uint8Array(1000);
    await readRange(ranges, piece, layer.size - 1000);
    assert.ok(readFileSync(blobPath(target, layer.digest)).subarray(-1000).equals(piece));
    await client.close();
  });

  test('without the password, or with another, it says how to log in', async () => {
    const nobody = mkdtempSync(join(root, 'docker-'));
    const name = `docker://${registry.host}/team/app`;
    for (const config of [nobody, configWith('another')]) {
      const { status, stderr } = await convert(`${name}:plain`, `${name}:never`, config);
      assert.equal(status, 1);
      assert.match(stderr, /docker login 127/);
      assert.ok(stderr.includes(join(config, 'config.json')));
      assert.ok(!stderr.includes('another') && !stderr.includes('    at '));
    }
  });

  test('an image, and a registry, that is not there', async () => {
    const config = configWith(PASSWORD);
    const missing = await convert(`${registry.host}/team/app:none`, `oci:${root}/x`, config);
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /app:none: 127.*answered 404 \(MANIFEST_UNKNOWN/);
    const gone = await convert('127.0.0.1:1/app', `oci:${root}/x`, config);
    assert.equal(gone.status, 1);
    assert.match(gone.stderr, /127\.0\.0\.1:1: it refuses connections; is it running\?/);
  });
});
