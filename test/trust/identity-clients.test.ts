/**
 * Goal: containerd's other clients refuse a forged image, and its victim is correct in another namespace.
 * Method: the attempts of test/trust/identity.test.ts, through CRI of containerd 1.6 or 1.7, and through the transfer
 * service of a containerd from 2.1 on, if these are in PATH.
 */
import assert from 'node:assert/strict';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { CriClient } from '../support/cri-client.js';
import { criConfig, folderOfContainerd, transferConfig } from '../support/cri-containerd.js';
import { FORGERIES, ForgedImages, GOOD } from '../support/forged-image.js';
import { LoopbackRegistry } from '../support/loopback-registry.js';
import { obdctl } from '../support/run-obdctl.js';
import { SnapshotsClient } from '../support/snapshotter-process.js';
import { type TrustOptions, trustCase } from '../support/trust-case.js';

const skip = unfit === false ? undefined : unfit;
const older = folderOfContainerd([1, 6], [2, 0]);
const newer = folderOfContainerd([2, 1]);
const options = (reason = skip): TrustOptions => ({ skip: reason, slow: true, timeout: 240_000 });
/** Error of all of containerd's unpackers if a layer's diff ID differs from the config's. */
const REFUSED = /wrong diff id .*calculated on extraction/;

/**
 * Runs `body` with a containerd, its registry with all images, and obd-ts.
 *
 * @param add - Adds images, and returns their tags.
 */
async function withImages<T>(
  start: Parameters<typeof PrivateContainerd.start>[0],
  body: (containerd: PrivateContainerd) => Promise<T>,
  add: (images: ForgedImages) => readonly string[] = () => [],
): Promise<T> {
  const images = await ForgedImages.make();
  try {
    const added = add(images);
    const first = async (containerd: PrivateContainerd) => {
      for (const tag of ['victim', 'pause', ...FORGERIES, ...added]) {
        await containerd.push(`${images.directory}:${tag}`, `${tag}:1`, '--preserve-digests');
      }
      await containerd.startObd();
    };
    const containerd = await PrivateContainerd.start({ ...start, first });
    try {
      return await body(containerd);
    } finally {
      await containerd.stop();
    }
  } finally {
    images.remove();
  }
}

/** Pulls the victim in `namespace`, and returns a container's output. */
async function victim(containerd: PrivateContainerd, namespace: string): Promise<string> {
  const name = `${containerd.registry}/victim:1`;
  const socket = ['--address', containerd.socket, '--namespace', namespace];
  const { status, stderr, stdout } = await obdctl('rpull', '--plain-http', ...socket, name);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /2 layers: 2 lazy/, stderr);
  const inNamespace = ['--namespace', namespace];
  const run = [...inNamespace, 'run', '--rm', '--snapshotter', 'obd-ts'];
  const said = await containerd.ctr(...run, name, 'c', '/bin/cat', '/hello');
  await containerd.ctr(...inNamespace, 'images', 'remove', '--sync', name);
  return said;
}

trustCase(
  'identity',
  'forged images through CRI, their victim in another namespace',
  'every forgery refused; the victim lazy and right, in CRI and elsewhere',
  async () =>
    await withImages(
      { folder: older, configure: (to) => criConfig(to, `${to.registry}/pause:1`) },
      async (containerd) => {
        const image = (tag: string) => `${containerd.registry}/${tag}:1`;
        const cri = new CriClient(containerd.socket, `/${containerd.namespace}`);
        for (const forgery of FORGERIES) {
          await assert.rejects(cri.pull(image(forgery)), REFUSED, forgery);
        }
        assert.equal(await victim(containerd, 'elsewhere'), GOOD);
        await cri.pull(image('victim'));
        const sleep = ['/bin/sleep', '100'];
        const said = await cri.withContainer(image('victim'), sleep, (exec) =>
          exec('/bin/cat', '/hello'),
        );
        assert.equal(said, GOOD);
        for (const tag of ['victim', 'pause']) await cri.removeImage(image(tag));
        cri.close();
        return `${FORGERIES.length} refused; ${said.trim()}`;
      },
    ),
  options(older === undefined ? 'no containerd 1.6 or 1.7 in PATH' : skip),
);

trustCase(
  'identity',
  'images whose annotations name another registry, through CRI that sends no reference',
  'that registry is never asked; the image is served from its own, and its victim is right',
  async () => {
    const evil = await LoopbackRegistry.start();
    try {
      const configure = (to: PrivateContainerd) =>
        criConfig(to, `${to.registry}/pause:1`).replace(
          'annotations = false',
          'annotations = true',
        );
      // Another repository, and its own one at another port.
      const lures = { lure: `${evil.host}/x/y:1`, port: `${evil.host}/port:1` };
      return await withImages(
        { folder: older, configure },
        async (containerd) => {
          const image = (tag: string) => `${containerd.registry}/${tag}:1`;
          const cri = new CriClient(containerd.socket, `/${containerd.namespace}`);
          const snapshots = new SnapshotsClient(containerd.snapshotterSocket);
          // After this pull, the snapshotter knows the port.
          await cri.pull(image('pause'));
          for (const lure of Object.keys(lures)) {
            await cri.pull(image(lure));
            assert.deepEqual(evil.seen, [], lure);
          }
          const served = 'labels."containerd.io/snapshot/obd-ts.served"==lazy';
          const lazy = (await snapshots.list(served)).filter(({ kind }) => kind === 'COMMITTED');
          snapshots.close();
          assert.ok(lazy.length > 0, 'the layer that pause has not');
          await cri.pull(image('victim'));
          const said = await cri.withContainer(image('victim'), ['/bin/sleep', '100'], (exec) =>
            exec('/bin/cat', '/hello'),
          );
          assert.equal(said, GOOD);
          assert.deepEqual(evil.seen, []);
          for (const tag of ['victim', ...Object.keys(lures), 'pause']) {
            await cri.removeImage(image(tag));
          }
          cri.close();
          return `not asked; lazy, ${said.trim()}`;
        },
        (images) => {
          const { layers } = images.manifest('victim');
          const other = images.manifest('other').layers;
          layers.forEach(({ digest }, i) => {
            evil.blobs.set(digest, images.blob(other[i]?.digest ?? ''));
          });
          for (const [tag, reference] of Object.entries(lures)) images.addLure(tag, reference);
          return Object.keys(lures);
        },
      );
    } finally {
      await evil.close();
    }
  },
  options(older === undefined ? 'no containerd 1.6 or 1.7 in PATH' : skip),
);

trustCase(
  'identity',
  'forged images through the transfer service, their victim in another namespace',
  'every forgery refused; the victim lazy and right',
  async () =>
    await withImages({ folder: newer, configure: transferConfig }, async (containerd) => {
      const pull = (tag: string) =>
        containerd.ctr(
          ...['--namespace', 'w1', 'images', 'pull', '--plain-http', '--snapshotter', 'obd-ts'],
          `${containerd.registry}/${tag}:1`,
        );
      for (const forgery of FORGERIES) await assert.rejects(pull(forgery), REFUSED, forgery);
      assert.equal(await victim(containerd, 'w2'), GOOD);
      await pull('victim');
      assert.equal(await victim(containerd, 'w2'), GOOD);
      const name = `${containerd.registry}/victim:1`;
      await containerd.ctr('--namespace', 'w1', 'images', 'remove', '--sync', name);
      return `${FORGERIES.length} refused; the victim ${GOOD.trim()}`;
    }),
  options(newer === undefined ? 'no containerd from 2.1 on in PATH' : skip),
);

trustCase(
  'identity',
  'a rebase capability in containerd from 2.1 on',
  'pulling fails with the line to remove',
  async () => {
    const configure = (to: PrivateContainerd) => transferConfig(to, 'capabilities = ["rebase"]\n');
    return await withImages({ folder: newer, configure }, async (containerd) => {
      const pull = ['images', 'pull', '--plain-http', '--snapshotter', 'obd-ts'];
      const pulled = containerd.ctr(...pull, `${containerd.registry}/victim:1`);
      await assert.rejects(pulled, /remove "rebase" from "capabilities"/);
      return 'refused at Prepare';
    });
  },
  options(newer === undefined ? 'no containerd from 2.1 on in PATH' : skip),
);
