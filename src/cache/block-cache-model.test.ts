/**
 * Goal: in any order of reads, closes, crashes, damage to state files and failing fetches, a read ends with
 * the blob's bytes or an injected error.
 * Method: random scripts over three blobs and several handles, against the bytes themselves.
 */
import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { BlobDouble, distinctBytes, gone } from '../../test/support/blob-double.js';
import {
  blobFiles,
  cacheDirectory,
  crashedCopy,
  removeCacheDirectories,
} from '../../test/support/cache-directories.js';
import { OpenBlob } from '../../test/support/cache-scene.js';
import { ErrorCodes, hasCode } from '../errors.js';
import { CHUNK_BYTES, readFully } from '../io/random-access-file.js';
import { BlockCache } from './block-cache.js';

after(removeCacheDirectories);

const CONTENTS = [3.5, 9, 24.1].map((chunks, i) =>
  distinctBytes(Math.floor(chunks * CHUNK_BYTES), i),
);
/** Longer than any script without a hang takes. */
const DEADLINE_MS = 20_000;

const reads = fc.array(
  fc.record({
    blob: fc.nat(CONTENTS.length - 1),
    handle: fc.nat(1),
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    length: fc.oneof(fc.nat(3 * CHUNK_BYTES), fc.nat(5000)),
  }),
  { minLength: 1, maxLength: 8 },
);
const steps = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('read' as const), reads }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('readWhileClosing' as const), reads }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('fail' as const), reads }) },
    { weight: 2, arbitrary: fc.constant({ do: 'restart' as const }) },
    { weight: 2, arbitrary: fc.constant({ do: 'crash' as const }) },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant('garble' as const),
        at: fc.nat(8191),
        cutBytes: fc.nat(10_000),
      }),
    },
    { weight: 1, arbitrary: fc.constant({ do: 'invalidate' as const }) },
  ),
  { minLength: 1, maxLength: 14 },
);
type Read = { blob: number; handle: number; at: number; length: number };

class Scene {
  readonly #capacityBytes: number;
  #directory = cacheDirectory();
  #cache!: BlockCache;
  #doubles: BlobDouble[] = [];
  #handles: OpenBlob[] = [];

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes;
  }

  async open(): Promise<void> {
    this.#cache = await BlockCache.open(this.#directory, {
      capacityBytes: this.#capacityBytes,
      reserveBytes: 0,
    });
    this.#doubles = CONTENTS.flatMap((bytes) => [new BlobDouble(bytes), new BlobDouble(bytes)]);
    this.#handles = await Promise.all(
      this.#doubles.map((each) => OpenBlob.open(this.#cache, each)),
    );
  }

  async close(): Promise<void> {
    await this.#cache.close();
  }

  async crash(): Promise<void> {
    const copy = crashedCopy(this.#directory);
    await this.#cache.close();
    this.#directory = copy;
    await this.open();
  }

  async read(list: readonly Read[], mayFail: boolean): Promise<void> {
    await Promise.all(list.map((each) => this.#readOne(each, mayFail)));
  }

  async readWhileClosing(list: readonly Read[]): Promise<void> {
    const reading = this.read(list, true);
    for (const handle of this.#handles) handle.close();
    await reading;
    this.#handles = await Promise.all(
      this.#doubles.map((each) => OpenBlob.open(this.#cache, each)),
    );
  }

  async #readOne({ blob, handle, at, length }: Read, mayFail: boolean): Promise<void> {
    const content = CONTENTS[blob]!;
    const target = Buffer.alloc(Math.min(length, content.length), 0xee);
    const offset = Math.floor(at * (content.length - target.length));
    try {
      await readFully(this.#handles[2 * blob + handle]!, target, offset);
    } catch (error) {
      if (mayFail && hasCode(error, ErrorCodes.NotFound)) return;
      if (mayFail && hasCode(error, ErrorCodes.FailedPrecondition)) return;
      if (mayFail && error instanceof TypeError && error.message.endsWith('is closed')) return;
      throw error;
    }
    assert.ok(target.equals(content.subarray(offset, offset + target.length)), 'wrong bytes');
  }

  /** One handle's way to the registry is down. */
  async readFailing(list: readonly Read[]): Promise<void> {
    for (let i = 0; i < this.#doubles.length; i += 2) this.#doubles[i]!.before = gone;
    await this.read(list, true);
    for (const double of this.#doubles) double.before = async () => {};
  }

  /** Damages the state of an earlier process: in the slots, or by cutting off the file. */
  async garble(at: number, cutBytes: number): Promise<void> {
    await this.#cache.close();
    for (const path of blobFiles(this.#directory)) {
      const { size } = statSync(path);
      if (cutBytes % 3 === 0) truncateSync(path, Math.max(0, size - cutBytes));
      else {
        const bytes = readFileSync(path);
        bytes[size - 8192 + at]! ^= 0x10;
        writeFileSync(path, bytes);
      }
    }
    await this.open();
  }

  invalidate(): void {
    for (const handle of this.#handles) handle.invalidate(1000, 2 * CHUNK_BYTES);
  }
}

test('every read is right, or fails as planned, and ends', async () => {
  const capacities = fc.constantFrom(1 << 30, 12 * CHUNK_BYTES, 0);
  await fc.assert(
    fc.asyncProperty(steps, capacities, async (script, capacityBytes) => {
      const scene = new Scene(capacityBytes);
      await scene.open();
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_resolve, reject) => {
        timer = setTimeout(
          () => reject(new assert.AssertionError({ message: 'it hangs' })),
          DEADLINE_MS,
        );
      });
      try {
        for (const step of script) await Promise.race([perform(scene, step), late]);
      } finally {
        clearTimeout(timer);
        await scene.close();
        removeCacheDirectories();
      }
    }),
    { numRuns: Number(process.env['FUZZ_RUNS'] ?? 25) },
  );
});

type Step = typeof steps extends fc.Arbitrary<Array<infer S>> ? S : never;

async function perform(scene: Scene, step: Step): Promise<void> {
  switch (step.do) {
    case 'read':
      return await scene.read(step.reads, false);
    case 'readWhileClosing':
      return await scene.readWhileClosing(step.reads);
    case 'fail':
      return await scene.readFailing(step.reads);
    case 'restart':
      await scene.close();
      return await scene.open();
    case 'crash':
      return await scene.crash();
    case 'garble':
      return await scene.garble(step.at, step.cutBytes);
    case 'invalidate':
      return scene.invalidate();
  }
}
