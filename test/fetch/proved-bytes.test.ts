/**
 * Goal: of a layer with a hash tree no wrong byte is ever served, whatever its source sends, and when; and a source that
 * sends right bytes after wrong ones is enough.
 * Method: seeded changes in the bytes of a registry's answers, once or for good, at the first fetch or after an eviction;
 * images opened and read through a real cache, by requests of any size. The same changes without the tree show that the
 * changes matter.
 *
 *     OBD_FETCH_CHANGES=2000 OBD_FETCH_SEED=7 npm run test:fetch
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { BlockCache } from '../../src/cache/block-cache.js';
import { ErrorCodes, hasCode } from '../../src/errors.js';
import { type OpenedImage, openImage } from '../../src/image/open-image.js';
import { CHUNK_BYTES, readFully } from '../../src/io/random-access-file.js';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import { sha256Of } from '../../src/oci/digest.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import type { TreeAddress } from '../../src/zfile/hash-tree.js';
import { BlobDouble } from '../support/blob-double.js';
import { cacheDirectory, removeCacheDirectories } from '../support/cache-directories.js';
import { OpenBlob } from '../support/cache-scene.js';
import {
  CHANGES,
  type Changeable,
  type ChangeName,
  type Random,
  randomOf,
} from '../support/changed-blobs.js';
import { noisyPage, provedLayer } from '../support/proved-layer.js';
import { UNLIMITED_INDEX_MEMORY } from '../support/unlimited-memory.js';

after(removeCacheDirectories);

const CHANGES_WANTED = Number(process.env['OBD_FETCH_CHANGES'] ?? 10_000);
const SEED = Number(process.env['OBD_FETCH_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** With a new cache for each so many changes. */
const CHANGES_PER_CACHE = 250;
/** 1.4 MiB and three bottom nodes: the blob is fetched in several requests. */
const PAGES = 360;
const FORMS = [
  { algorithm: 'lz4', blockBytes: 4096 },
  { algorithm: 'lz4', blockBytes: 16384 },
  { algorithm: 'zstd', blockBytes: 16384 },
] as const;

const content = Buffer.concat(Array.from({ length: PAGES }, (_, page) => noisyPage(page, 1)));
const BLOBS: readonly Changeable[] = FORMS.map((form) => ({
  form,
  own: provedLayer(PAGES, (page) => noisyPage(page, 1), form),
  // Every third page differs.
  other: provedLayer(PAGES, (page) => noisyPage(page, page % 3 === 0 ? 2 : 1), form),
}));

/** How a change reaches the reader. */
interface Case {
  readonly blobs: Changeable;
  readonly changed: Buffer;
  /** Whether each chunk is sent right once it was sent wrong. */
  readonly isPassing: boolean;
  /** Whether the blob is fetched and read before it changes, and then fetched again. */
  readonly isLater: boolean;
  readonly hashTree: TreeAddress | undefined;
  readonly random: Random;
}

interface Outcome {
  wrongReads: number;
  rightReads: number;
  failedReads: number;
  failedOpening: boolean;
}

class Scene {
  readonly #cache: BlockCache;
  readonly #decoded = new DecodedBlocks(1 << 20);
  #blobs = 0;

  private constructor(cache: BlockCache) {
    this.#cache = cache;
  }

  static async open(): Promise<Scene> {
    return new Scene(
      await BlockCache.open(cacheDirectory(), { capacityBytes: 64 << 20, reserveBytes: 0 }),
    );
  }

  async run({ blobs, changed, isPassing, isLater, hashTree, random }: Case): Promise<Outcome> {
    const digest = sha256Of(Buffer.from(`blob ${this.#blobs++}`));
    const source = new BlobDouble(blobs.own.blob, 'registry.example/app', digest);
    const sent = new Set<number>();
    let changes = !isLater;
    source.damage = (target, { offset }) => {
      for (let at = offset; changes && at < offset + target.length; ) {
        const chunk = Math.floor(at / CHUNK_BYTES);
        const end = Math.min((chunk + 1) * CHUNK_BYTES, offset + target.length);
        if (!isPassing || !sent.has(chunk)) target.set(changed.subarray(at, end), at - offset);
        sent.add(chunk);
        at = end;
      }
    };
    const outcome = { wrongReads: 0, rightReads: 0, failedReads: 0, failedOpening: false };
    let image: OpenedImage<OpenBlob>;
    try {
      image = await openImage(
        {
          repoBlobUrl: 'https://registry.example/v2/app/blobs',
          lowers: [{ digest, size: source.sizeBytes, ...(hashTree && { hashTree }) }],
        },
        {
          openBlob: () => OpenBlob.open(this.#cache, source),
          formats: LAYER_FORMATS,
          decoded: this.#decoded,
          memory: UNLIMITED_INDEX_MEMORY,
        },
      );
    } catch (error) {
      assert.ok(isRefusal(error), String(error));
      return { ...outcome, failedOpening: true };
    }
    try {
      if (isLater) {
        await this.#read(image, random, { ...outcome });
        changes = true;
        const [blob] = image.remote;
        blob!.invalidate(0, blob!.sizeBytes);
      }
      await this.#read(image, random, outcome);
      // Once more, as warm as it can be.
      await this.#read(image, random, outcome);
    } finally {
      image.close();
    }
    return outcome;
  }

  async #read(image: OpenedImage<OpenBlob>, random: Random, outcome: Outcome): Promise<void> {
    for (let at = 0; at < content.length; ) {
      const length = Math.min(content.length - at, 512 * (1 + random(8 * 40)));
      const target = Buffer.alloc(length);
      try {
        await readFully(image.disk, target, at);
        const isRight = target.equals(content.subarray(at, at + length));
        if (isRight) outcome.rightReads++;
        else outcome.wrongReads++;
      } catch (error) {
        assert.ok(isRefusal(error), String(error));
        outcome.failedReads++;
      }
      at += length;
    }
  }

  async close(): Promise<void> {
    await this.#cache.close();
    removeCacheDirectories();
  }
}

/** `Unsupported`: what is read without a tree may be any format. */
function isRefusal(error: unknown): boolean {
  return hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.Unsupported);
}

/** Runs `work` with numbers [0, count), and a new scene for each CHANGES_PER_CACHE of them. */
async function withScenes(
  count: number,
  work: (scene: Scene, number: number) => Promise<void>,
): Promise<void> {
  for (let number = 0; number < count; ) {
    const scene = await Scene.open();
    try {
      for (let i = 0; i < CHANGES_PER_CACHE && number < count; i++) await work(scene, number++);
    } finally {
      await scene.close();
    }
  }
}

function drawn(number: number): { readonly name: ChangeName; readonly change: Case } {
  const random = randomOf(SEED + number);
  const names = Object.keys(CHANGES) as ChangeName[];
  const name = names[random(names.length)]!;
  const blobs = BLOBS[random(BLOBS.length)]!;
  const changed = CHANGES[name](blobs, random);
  const isPassing = random(2) === 0;
  const isLater = random(3) === 0;
  const { hashTree } = blobs.own;
  return { name, change: { blobs, changed, isPassing, isLater, hashTree, random } };
}

describe('a layer with a hash tree', () => {
  test(`is served right or not at all after ${CHANGES_WANTED} changes`, async (t) => {
    t.diagnostic(`seed ${SEED}`);
    const seen = new Map<ChangeName, { cases: number; refused: number }>();
    await withScenes(CHANGES_WANTED, async (scene, number) => {
      const { name, change } = drawn(number);
      const outcome = await scene.run(change);
      const about = `seed ${SEED}, change ${number}: ${name}, ${change.blobs.form.algorithm} ${change.blobs.form.blockBytes}, passing ${change.isPassing}, later ${change.isLater}: ${JSON.stringify(outcome)}`;
      assert.equal(outcome.wrongReads, 0, about);
      const refused = outcome.failedOpening || outcome.failedReads > 0;
      if (change.isPassing) assert.ok(!refused && outcome.rightReads > 0, about);
      const counts = seen.get(name) ?? { cases: 0, refused: 0 };
      seen.set(name, { cases: counts.cases + 1, refused: counts.refused + Number(refused) });
    });
    for (const [name, { cases, refused }] of seen)
      t.diagnostic(`${name}: ${cases}, ${refused} refused`);
  });

  test('is not opened by another root or offset', async () => {
    const scene = await Scene.open();
    try {
      for (const { own, other, form } of BLOBS) {
        const { root, offset } = own.hashTree;
        for (const hashTree of [
          { root: other.hashTree.root, offset },
          { root: `sha256:${'0'.repeat(64)}`, offset },
          { root, offset: offset + 512 },
          { root, offset: own.blob.length },
          { root, offset: 1 },
        ]) {
          const outcome = await scene.run({
            ...{ blobs: { own, other, form }, changed: own.blob, isPassing: false },
            ...{ isLater: false, hashTree, random: randomOf(1) },
          });
          assert.ok(outcome.failedOpening, JSON.stringify(hashTree));
        }
      }
    } finally {
      await scene.close();
    }
  });

  test('serves what a source that lies without end sends right, and fails the rest', async () => {
    const scene = await Scene.open();
    try {
      for (const blobs of BLOBS) {
        const changed = CHANGES['a changed block with a right CRC'](blobs, randomOf(SEED));
        const outcome = await scene.run({
          ...{ blobs, changed, isPassing: false, isLater: false },
          ...{ hashTree: blobs.own.hashTree, random: randomOf(SEED) },
        });
        assert.equal(outcome.wrongReads, 0);
        assert.ok(outcome.rightReads > outcome.failedReads && outcome.failedReads > 0);
      }
    } finally {
      await scene.close();
    }
  });
});

describe('a layer without its hash tree', () => {
  test('serves wrong bytes after such changes, and right ones where there are none', async (t) => {
    const wrong = new Map<ChangeName, number>();
    await withScenes(200, async (scene, number) => {
      const { name, change } = drawn(number);
      const { wrongReads } = await scene.run({ ...change, isPassing: false, hashTree: undefined });
      if (wrongReads > 0) wrong.set(name, (wrong.get(name) ?? 0) + 1);
    });
    for (const [name, cases] of wrong) t.diagnostic(`${name}: wrong in ${cases}`);
    for (const name of [
      'a changed block with a right CRC',
      'two whole blocks exchanged, index and CRCs made right',
      'another blob with a right tree',
    ] as const) {
      assert.ok((wrong.get(name) ?? 0) > 0, name);
    }
    const scene = await Scene.open();
    const [blobs] = BLOBS;
    const unchanged = await scene.run({
      ...{ blobs: blobs!, changed: blobs!.own.blob, isPassing: false, isLater: false },
      ...{ hashTree: undefined, random: randomOf(SEED) },
    });
    assert.deepEqual([unchanged.wrongReads, unchanged.failedReads], [0, 0]);
    await scene.close();
  });
});
