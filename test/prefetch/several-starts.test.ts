/**
 * Goal: an image that is started in several ways has a load order for each, which a node chooses by what it knows of the start.
 * Method: nodes with empty caches and one registry; starts of disjoint pages.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ExpectRequest } from '../../src/grpc/gen/obd/blockd/v1/ExpectRequest.js';
import { commandDigest } from '../../src/load-order/command-line.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { ReferrerRegistry } from '../support/referrer-registry.js';
import { type PlacedImage, placeImage, startImage } from '../support/start-image.js';
import { type StartedImage, StartNode } from '../support/start-node.js';

const PAGES = 2048;
const FETCHED = 'hot pages fetched';
const PUBLISHED = 'load order published';
/** Far from each other, so that the kernel's read-ahead of one start reads no page of another. */
const startAt = (first: number) => Array.from({ length: 20 }, (_, i) => first + 3 * i);
const USUAL = startAt(100);
const WORKER = startAt(700);
const NAMED = startAt(1500);
const imageCommand = commandDigest(['/entry', 'serve']);
const usual: Partial<ExpectRequest> = { imageCommand };
const worker: Partial<ExpectRequest> = { imageCommand, command: commandDigest(['/entry', 'work']) };
const named: Partial<ExpectRequest> = { imageCommand, orderNames: ['batch'] };

async function publish(
  image: PlacedImage,
  wish: Partial<ExpectRequest>,
  pages: readonly number[],
): Promise<void> {
  await StartNode.with({ publishes: true }, async (node) => {
    const started = await node.begin(image, wish);
    await started.readPages(pages);
    await node.logged(PUBLISHED);
    assert.deepEqual(node.warnings(), []);
    await started.end();
  });
}

/** Whether the pages are hot ones. */
async function hasAll(
  registry: ReferrerRegistry,
  started: StartedImage,
  pages: readonly number[],
): Promise<boolean> {
  const { length } = registry.served;
  await started.readPages(pages);
  return registry.served.length === length;
}

describe('an image with several load orders', { skip: blockdUnfit }, () => {
  test('is fetched by the order of its start, on a host with other starts too', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 1));
    await Promise.all([
      publish(image, usual, USUAL),
      publish(image, worker, WORKER),
      publish(image, named, NAMED),
    ]);
    const commands = [...registry.manifests.values()].flatMap(({ bytes }) => {
      const { annotations = {} } = JSON.parse(bytes.toString());
      if (annotations['dev.obd-ts.hot-pages'] === undefined) return [];
      const [command, name] = ['command', 'name'].map(
        (each) => annotations[`dev.obd-ts.load-order.${each}`],
      );
      return [`${command} ${name}`];
    });
    assert.deepEqual(
      commands.toSorted(),
      [`${imageCommand} undefined`, `${worker.command} undefined`, 'undefined batch'].toSorted(),
    );
    await StartNode.with({}, async (node) => {
      let fetched = 0;
      for (const [wish, pages, others] of [
        [usual, USUAL, WORKER],
        [worker, WORKER, NAMED],
        [named, NAMED, USUAL],
      ] as const) {
        // A container's labels come after the pull.
        await node.expect(image, usual);
        const started = await node.begin(image, wish);
        const { digest } = await node.logged(FETCHED, ++fetched);
        assert.ok(await hasAll(registry, started, pages), `${digest}`);
        await started.readPages(others);
        await started.end();
      }
      for (const [wish, pages] of [
        [usual, USUAL],
        [named, NAMED],
        [worker, WORKER],
      ] as const) {
        const started = await node.begin(image, wish);
        assert.ok(await hasAll(registry, started, pages), 'what this host keeps');
        assert.ok((await started.state()).hotPagesRead >= pages.length);
        await started.end();
      }
      assert.equal(node.lines.filter(({ msg }) => msg === FETCHED).length, fetched);
      assert.deepEqual(node.warnings(), []);
    });
  });

  test('is not fetched by the order of another command line', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 2));
    await publish(image, usual, USUAL);
    await StartNode.with({}, async (node) => {
      const started = await node.begin(image, worker);
      await started.readPages(WORKER);
      const { hotPages } = await started.state();
      assert.equal(hotPages, 0);
      await started.readAll();
      await started.end();
      assert.deepEqual(node.warnings(), []);
    });
  });
});
