/**
 * Goal: an image in a layout is read whole and right or not at all; no file outside the layout is touched; a written
 * image is complete or absent.
 * Method: layouts written by a test's own builder and by our destination, in a temporary directory.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { blobPath, LayoutBuilder, sha256 } from '../../test/support/oci-layout-builder.js';
import { ErrorCodes } from '../errors.js';
import { type ImageSource, readSmallBlob } from '../oci/image-store.js';
import type { Descriptor } from '../oci/manifest.js';
import { OCI_MANIFEST } from '../oci/media-types.js';
import { OciLayoutDestination } from './oci-layout-destination.js';
import { OciLayoutSource } from './oci-layout-source.js';

const root = mkdtempSync(join(tmpdir(), 'obd-layout-'));
after(() => rmSync(root, { recursive: true }));
let made = 0;
const fresh = () => join(root, String(made++));

const content = randomBytes(600_000);
const blob = { mediaType: 'application/x', digest: sha256(content), size: content.length };

function builtLayout(): LayoutBuilder {
  const builder = new LayoutBuilder(fresh());
  const layer = { mediaType: 'application/x', blob: content, diffId: blob.digest };
  builder.tag('one', builder.addImage([layer]));
  builder.tag('two', builder.addImage([layer], 'arm64'));
  return builder;
}

async function readAll(source: ImageSource, descriptor: Descriptor): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source.readBlob(descriptor)) pieces.push(piece);
  return Buffer.concat(pieces);
}

const source = (directory: string, tag?: string) => new OciLayoutSource(directory, tag);
const image = (extra = {}) =>
  Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: blob,
      layers: [blob],
      ...extra,
    }),
  );

test('reads an image by its tag, or the only one', async () => {
  const { directory } = builtLayout();
  const found = await source(directory, 'two').resolve();
  assert.ok(found.kind === 'image');
  const [layer] = found.manifest.layers;
  assert.ok((await readAll(source(directory), layer as Descriptor)).equals(content));
  const config = await readSmallBlob(source(directory), found.manifest.config, 1000);
  assert.match(Buffer.from(config).toString(), /arm64/);
  await assert.rejects(readSmallBlob(source(directory), blob, 1000), {
    code: ErrorCodes.Unsupported,
  });
  await assert.rejects(source(directory).resolve(), {
    code: ErrorCodes.InvalidArgument,
    message: /2 images.*"one", "two"/,
  });
  await assert.rejects(source(directory, 'three').resolve(), { code: ErrorCodes.NotFound });
});

test('reports a missing path, a path that is not a layout, and another version', async () => {
  await assert.rejects(source(fresh()).resolve(), { code: ErrorCodes.NotFound });
  const { directory } = builtLayout();
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"2.0.0"}');
  await assert.rejects(source(directory, 'one').resolve(), { code: ErrorCodes.Unsupported });
  writeFileSync(join(directory, 'oci-layout'), 'no');
  await assert.rejects(source(directory, 'one').resolve(), { code: ErrorCodes.Corrupt });
});

test('reports damaged blobs and manifests as corrupt', async () => {
  const builder = builtLayout();
  const { directory } = builder;
  const path = builder.blobPath(blob.digest);
  const flipped = Buffer.from(content);
  flipped[599_999] = (flipped[599_999] as number) ^ 1;
  writeFileSync(path, flipped);
  await assert.rejects(readAll(source(directory), blob), { code: ErrorCodes.Corrupt });
  truncateSync(path, 599_999);
  await assert.rejects(readAll(source(directory), blob), { code: ErrorCodes.Corrupt });
  const { descriptor } = await source(directory, 'one').resolve();
  const manifest = builder.blobPath(descriptor.digest);
  writeFileSync(manifest, readFileSync(manifest, 'utf8').replace('"layers"', '"Layers"'));
  await assert.rejects(source(directory, 'one').resolve(), { code: ErrorCodes.Corrupt });
});

test('refuses symbolic links and FIFOs instead of leaving the layout or blocking', async () => {
  const builder = builtLayout();
  const { directory } = builder;
  const outside = join(root, 'outside');
  mkdirSync(outside);
  const path = builder.blobPath(blob.digest);
  renameSync(path, join(outside, 'blob'));
  symlinkSync(join(outside, 'blob'), path);
  await assert.rejects(readAll(source(directory), blob), { code: ErrorCodes.Corrupt });
  rmSync(path);
  mkdirSync(path);
  await assert.rejects(readAll(source(directory), blob), { code: ErrorCodes.Corrupt });
  renameSync(join(directory, 'blobs', 'sha256'), join(outside, 'sha256'));
  symlinkSync(join(outside, 'sha256'), join(directory, 'blobs', 'sha256'));
  await assert.rejects(source(directory, 'one').resolve(), { code: ErrorCodes.Corrupt });
  const before = readdirSync(join(outside, 'sha256'));
  const destination = new OciLayoutDestination(directory, 'x');
  const other = { ...blob, digest: sha256(Buffer.from('x')), size: 1 };
  await assert.rejects(destination.putBlob(other, Buffer.from('x')), { code: ErrorCodes.Corrupt });
  assert.deepEqual(readdirSync(join(outside, 'sha256')), before);
});

test('writes a new layout, and adds to an existing one', async () => {
  const directory = fresh();
  const file = join(root, 'content');
  writeFileSync(file, content);
  const first = new OciLayoutDestination(directory, 'a');
  assert.equal(await first.hasBlob(blob), false);
  let told = 0;
  await first.putBlob(blob, file, (bytes) => {
    told += bytes;
  });
  assert.equal(told, content.length);
  assert.equal(await first.hasBlob(blob), true);
  await first.publish(image(), OCI_MANIFEST);
  await first.close();
  const second = new OciLayoutDestination(directory, 'b');
  await second.publish(image({ annotations: { n: '2' } }), OCI_MANIFEST);
  await second.publish(image({ annotations: { n: '3' } }), OCI_MANIFEST);
  await second.close();
  const found = await source(directory, 'b').resolve();
  assert.ok(found.kind === 'image' && found.manifest.annotations?.['n'] === '3');
  assert.ok((await source(directory, 'a').resolve()).kind === 'image');
  assert.ok((await readAll(source(directory), blob)).equals(content));
  const names = readdirSync(join(directory, 'blobs', 'sha256'));
  assert.ok(names.every((name) => /^[0-9a-f]{64}$/.test(name)));
});

test('close() removes the files of an unpublished image', async () => {
  const directory = fresh();
  const unpublished = new OciLayoutDestination(directory, 'a');
  await unpublished.putBlob(blob, content);
  await unpublished.putManifest(image(), OCI_MANIFEST);
  await unpublished.close();
  assert.ok(!existsSync(directory));
  const builder = builtLayout();
  const before = readdirSync(join(builder.directory, 'blobs', 'sha256'));
  const adding = new OciLayoutDestination(builder.directory, 'a');
  await adding.putBlob(blob, content);
  const other = Buffer.from('other');
  await adding.putBlob({ ...blob, digest: sha256(other), size: 5 }, other);
  await adding.close();
  assert.deepEqual(readdirSync(join(builder.directory, 'blobs', 'sha256')), before);
});

test('refuses content that contradicts its descriptor', async () => {
  const directory = fresh();
  const destination = new OciLayoutDestination(directory, 'a');
  for (const wrong of [content.subarray(1), Buffer.concat([content, content])]) {
    await assert.rejects(destination.putBlob(blob, wrong), { code: ErrorCodes.Corrupt });
  }
  await assert.rejects(destination.putBlob(blob, join(root, 'none')), {
    code: ErrorCodes.NotFound,
  });
  assert.deepEqual(readdirSync(join(directory, 'blobs', 'sha256')), []);
  assert.ok(!existsSync(blobPath(directory, blob.digest)));
  await destination.close();
});

test('refuses a directory with other contents and changes nothing', async () => {
  const directory = fresh();
  mkdirSync(directory);
  writeFileSync(join(directory, 'thesis.txt'), 'x');
  const destination = new OciLayoutDestination(directory, 'a');
  await assert.rejects(destination.putBlob(blob, content), {
    code: ErrorCodes.FailedPrecondition,
  });
  await destination.close();
  assert.deepEqual(readdirSync(directory), ['thesis.txt']);
});
