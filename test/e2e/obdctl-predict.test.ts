/**
 * Goal: `obdctl predict` reads converted images where they are, fetches only what it needs, and says what it cannot do.
 * Method: a small image, converted into a layout and put into a registry on this machine; the command as a user runs it.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { elfBytes } from '../support/elf-bytes.js';
import { LoopbackRegistry } from '../support/loopback-registry.js';
import {
  blobPath,
  type Descriptor,
  LayoutBuilder,
  readJson,
  sha256,
  taggedManifest,
} from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { obdctl } from '../support/run-obdctl.js';
import { tarOf } from '../support/tar-builder.js';

const OCI_TAR = 'application/vnd.oci.image.layer.v1.tar';
/** Never predicted, and larger than all else. */
const UNUSED_BYTES = 24 << 20;

describe('obdctl predict', () => {
  let root: string;
  let registry: LoopbackRegistry;
  let image: string;
  let layersBytes = 0;

  before(async () => {
    root = mkdtempSync(join(tmpdir(), 'obdctl-predict-'));
    registry = await LoopbackRegistry.start();
    const program = { content: elfBytes({ needed: ['libown.so'] }), mode: 0o755 };
    const blob = tarOf([
      { name: 'bin/sh', ...program },
      { name: 'bin/other', ...program },
      { name: 'lib/libown.so', content: elfBytes() },
      { name: 'usr/unused', content: randomBytes(UNUSED_BYTES) },
    ]);
    const source = new LayoutBuilder(join(root, 'source'));
    const layer = { mediaType: OCI_TAR, blob, diffId: sha256(blob) };
    source.tag('plain', source.addImage([layer]));
    const target = join(root, 'converted');
    const { status, stderr } = await runObdconv([
      `oci:${source.directory}:plain`,
      `oci:${target}:obd`,
    ]);
    assert.equal(status, 0, stderr);
    const manifest = taggedManifest(target, 'obd');
    const { layers, config } = readJson<{ layers: Descriptor[]; config: Descriptor }>(
      blobPath(target, manifest.digest),
    );
    for (const { digest } of [...layers, config])
      registry.addBlob(readFileSync(blobPath(target, digest)));
    layersBytes = layers.reduce((sum, { size }) => sum + size, 0);
    const bytes = readFileSync(blobPath(target, manifest.digest));
    registry.manifests.set('x/y/obd', { mediaType: manifest.mediaType, bytes });
    image = `oci:${target}:obd`;
  });
  after(async () => {
    await registry.close();
    rmSync(root, { recursive: true, force: true });
  });

  test('prints a table of files in the order of their use, and sums', async () => {
    const { status, stdout, stderr } = await obdctl('predict', image);
    assert.equal(status, 0, stderr);
    const lines = stdout.trimEnd().split('\n');
    assert.match(lines[0]!, /^PATH +BYTES +TIER +RULE +REASON$/);
    assert.match(lines[1]!, /^\/bin\/sh +4\.0 KiB +1 +argv +entry point of the image$/);
    assert.match(stdout, /^\/lib\/libown\.so .* elf +libown\.so, needed by \/bin\/sh$/m);
    assert.match(lines.at(-1)!, /^2 files, \d+\.\d KiB \(tier 1: .*, tier 2: .*, tier 3: 0 B\)$/);
  });

  test('prints ranges as JSON, of another command', async () => {
    const args = ['--json', '--entrypoint', '["other"]', '--env', 'PATH=/bin'];
    const { status, stdout, stderr } = await obdctl('predict', ...args, image);
    assert.equal(status, 0, stderr);
    const { files } = JSON.parse(stdout) as {
      files: { path: string; ranges: { start: number }[] }[];
    };
    assert.equal(files[0]?.path, '/bin/other');
    assert.ok(files.every(({ ranges }) => ranges.length > 0 && ranges[0]!.start % 4096 === 0));
  });

  test('fetches a small part of an image in a registry, with the same result', async () => {
    const { status, stdout, stderr } = await obdctl(
      'predict',
      '--plain-http',
      `${registry.host}/x/y:obd`,
    );
    assert.equal(status, 0, stderr);
    assert.equal(stdout, (await obdctl('predict', image)).stdout);
    const ranges = registry.seen.flatMap(({ range }) => /(\d+)-(\d+)/.exec(range ?? '') ?? []);
    assert.ok(ranges.length > 0);
    let fetched = 0;
    for (const { range } of registry.seen) {
      const [, from, to] = /(\d+)-(\d+)/.exec(range ?? '') ?? [];
      if (to !== undefined) fetched += Number(to) - Number(from) + 1;
    }
    assert.ok(fetched < layersBytes / 4, `${fetched} of ${layersBytes} bytes`);
  });

  test('refuses a command that the image does not have, and names where it looked', async () => {
    const args = ['predict', '--env', 'PATH=/bin:/usr/bin', '--entrypoint'];
    const absent = await obdctl(...args, 'none', image);
    assert.equal(absent.status, 1);
    assert.equal(absent.stdout, '');
    assert.match(
      absent.stderr,
      /no program "none"; looked for \/bin\/none, \/usr\/bin\/none; name /,
    );
    const plain = await obdctl(...args, '/lib/libown.so', image);
    assert.match(plain.stderr, /no program "\/lib\/libown\.so"; looked for \/lib\/libown\.so; /);
  });

  test('refuses a plain image with the remedy, and arguments of the wrong form', async () => {
    const plain = await obdctl('predict', `oci:${join(root, 'source')}:plain`);
    assert.notEqual(plain.status, 0);
    assert.match(plain.stderr, /no overlaybd image.*convert it with obdconv/);
    const wrong = await obdctl('predict', '--args', '[1]', image);
    assert.notEqual(wrong.status, 0);
    assert.match(wrong.stderr, /--args: \[1\] is no JSON array of strings/);
  });
});
