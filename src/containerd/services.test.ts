/**
 * Goal: the classes of this room do in containerd what their headers say, and remove the rest of failed calls.
 * Method: a real containerd, private to this test; the test calls it through these classes and checks it with ctr.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { PrivateContainerd, unfit } from '../../test/support/containerd-private.js';
import { sha256 } from '../../test/support/oci-layout-builder.js';
import { tarOf } from '../../test/support/tar-builder.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { connectContainerd, underLease } from './connect.js';
import { ContentStore } from './content-store.js';
import { snapshotterPlugins } from './daemon-info.js';
import { ImageRecords } from './image-records.js';
import { Leases } from './leases.js';
import { Snapshots } from './snapshots.js';
import { unpackLayer } from './unpack-layer.js';

const LIFE_MS = 60_000;
const TAR = 'application/vnd.oci.image.layer.v1.tar';

describe("containerd's services", { skip: unfit, timeout: 60_000 }, () => {
  let containerd: PrivateContainerd;
  let client: GrpcClient;
  /** Under a lease, so that containerd does not collect what the tests make. */
  let leased: GrpcClient;
  let content: ContentStore;

  before(async () => {
    containerd = await PrivateContainerd.start();
    client = connectContainerd(containerd.socket, containerd.namespace);
    leased = underLease(client, await new Leases(client).create(LIFE_MS));
    content = new ContentStore(leased);
  });
  after(async () => {
    client.close();
    await containerd.stop();
  });

  const descriptorOf = (bytes: Uint8Array) => ({ digest: sha256(bytes), size: bytes.length });

  async function readAll(digest: string): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    for await (const piece of content.read(digest)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  describe('content', () => {
    for (const [name, bytes, pieceBytes] of [
      ['nothing', 0, 1],
      ['a little', 100, 7],
      ['one message', 1 << 20, 1 << 20],
      ['several messages', (5 << 20) + 3, 70_001],
    ] as const) {
      test(`${name} is stored and read back`, async () => {
        const blob = randomBytes(bytes);
        const labels = { 'a.b/c': 'd', [`only-${bytes}`]: '1' };
        assert.equal(
          await content.write(descriptorOf(blob), labels, pieces(blob, pieceBytes)),
          true,
        );
        const { updatedMs, ...info } = await content.info(sha256(blob));
        assert.deepEqual(info, { digest: sha256(blob), sizeBytes: bytes, labels });
        assert.ok(Math.abs(updatedMs - Date.now()) < 60_000, `updated at ${updatedMs} ms`);
        assert.ok(blob.equals(await readAll(sha256(blob))));
      });
    }

    test('storing an existing blob reads no bytes and sets the labels', async () => {
      const blob = randomBytes(10);
      await content.write(descriptorOf(blob), { a: '1', b: '1' }, [blob]);
      const refusing = pieces(blob, 1, () => assert.fail('was asked for'));
      assert.equal(await content.write(descriptorOf(blob), { b: '2' }, refusing), false);
      assert.deepEqual((await content.info(sha256(blob))).labels, { a: '1', b: '2' });
    });

    test('bytes of another digest or length are refused and removed', async () => {
      const blob = randomBytes(10);
      for (const wrong of [randomBytes(10), blob.subarray(1), Buffer.concat([blob, blob])]) {
        await assert.rejects(content.write(descriptorOf(blob), {}, [wrong]), {
          code: ErrorCodes.FailedPrecondition,
        });
      }
      await assert.rejects(content.info(sha256(blob)), { code: ErrorCodes.NotFound });
      assert.deepEqual(rows(await containerd.ctr('content', 'active')), []);
    });

    test('an error of the source is rethrown, and the partial blob removed', async () => {
      const blob = randomBytes(3 << 20);
      const reason = new ObdError(ErrorCodes.Registry, 'gone');
      const failing = pieces(blob, 1 << 20, (at) => {
        if (at > 1 << 20) throw reason;
      });
      await assert.rejects(content.write(descriptorOf(blob), {}, failing), reason);
      assert.deepEqual(rows(await containerd.ctr('content', 'active')), []);
    });

    test('a blob is found by its labels, only in its own namespace', async () => {
      const blob = randomBytes(10);
      await content.write(descriptorOf(blob), { 'containerd.io/gc.ref.content.config': 'x' }, [
        blob,
      ]);
      const found = [];
      for await (const info of content.list(['labels."containerd.io/gc.ref.content.config"'])) {
        found.push(info.digest);
      }
      assert.deepEqual(found, [sha256(blob)]);
      const elsewhere = connectContainerd(containerd.socket, 'elsewhere');
      await assert.rejects(new ContentStore(elsewhere).info(sha256(blob)), {
        code: ErrorCodes.NotFound,
      });
      elsewhere.close();
    });
  });

  test('connect() refuses an invalid namespace before it sends anything', () => {
    for (const wrong of ['', 'a b', 'ä', 'a\nb', '-a', 'x'.repeat(77)]) {
      const connect = () => connectContainerd(containerd.socket, wrong);
      assert.throws(connect, { code: ErrorCodes.InvalidArgument });
    }
  });

  test('images are created, updated, listed and removed', async () => {
    const records = new ImageRecords(leased);
    const name = 'localhost:5000/a:1';
    const targets = [randomBytes(3), randomBytes(4)].map((bytes) => ({
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      ...descriptorOf(bytes),
    }));
    for (const target of targets) {
      await records.set(name, target);
      assert.deepEqual(await records.get(name), { name, target, labels: {} });
    }
    assert.deepEqual(
      (await records.list([`name==${name}`])).map((image) => image.name),
      [name],
    );
    await records.remove(name);
    await assert.rejects(records.get(name), { code: ErrorCodes.NotFound });
  });

  test('a lease keeps its objects until it is deleted', async () => {
    const leases = new Leases(client);
    const id = await leases.create(LIFE_MS);
    const blob = randomBytes(10);
    await new ContentStore(underLease(client, id)).write(descriptorOf(blob), {}, [blob]);
    await leases.remove(await leases.create(LIFE_MS), true);
    await content.info(sha256(blob));
    await leases.remove(id, true);
    await assert.rejects(content.info(sha256(blob)), { code: ErrorCodes.NotFound });
  });

  test('snapshots are prepared, filled from a layer, committed and removed', async () => {
    const snapshots = new Snapshots(leased, 'overlayfs');
    const tar = tarOf([{ name: 'file', content: 'x' }]);
    await content.write(descriptorOf(tar), {}, [tar]);
    const layer = { mediaType: TAR, ...descriptorOf(tar) };
    const mounts = await snapshots.prepare('active', '', { 'containerd.io/snapshot/x': 'y' });
    await assert.rejects(snapshots.prepare('active', '', {}), { code: ErrorCodes.AlreadyExists });
    await assert.rejects(unpackLayer(leased, layer, mounts, sha256(Buffer.from(''))), {
      code: ErrorCodes.Corrupt,
    });
    await unpackLayer(leased, layer, mounts, sha256(tar));
    await snapshots.commit('layer', 'active', { l: '1' });
    const info = await snapshots.stat('layer');
    assert.deepEqual(info, { name: 'layer', parent: '', kind: 'COMMITTED', labels: { l: '1' } });
    await snapshots.prepare('child', 'layer', {});
    await assert.rejects(snapshots.remove('layer'), { code: ErrorCodes.FailedPrecondition });
    await snapshots.remove('child');
    await snapshots.remove('layer');
    await assert.rejects(snapshots.stat('layer'), { code: ErrorCodes.NotFound });
  });

  test('prepare() names a proxy plugin that does not run, and reaches one that has just started', async () => {
    const away = new Snapshots(leased, 'obd-ts');
    await assert.rejects(away.stat('x'), { code: ErrorCodes.NotFound });
    await assert.rejects(away.prepare('x', '', {}), {
      code: ErrorCodes.Unavailable,
      message: /^Cannot use the snapshotter "obd-ts": containerd does not reach it; /,
    });

    // It started a moment ago, and containerd has not noticed.
    await containerd.startObd();
    await away.prepare('x', '', {});
    await away.remove('x');
  });

  test('snapshotterPlugins() lists the snapshotters and those that did not start', async () => {
    const plugins = await snapshotterPlugins(client);
    const problemOf = (name: string) => plugins.find((plugin) => plugin.name === name)?.problem;
    assert.ok(plugins.some(({ name }) => name === 'obd-ts'));
    assert.equal(problemOf('overlayfs'), undefined);
    assert.match(problemOf('devmapper') ?? '', /devmapper/);
  });
});

async function* pieces(
  blob: Buffer,
  bytes: number,
  each = (_at: number) => {},
): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < blob.length; at += bytes) {
    each(at);
    yield blob.subarray(at, at + bytes);
  }
}

/** A table printed by ctr, without its header. */
function rows(text: string): string[] {
  return text.trim().split('\n').slice(1);
}
