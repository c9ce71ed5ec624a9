/**
 * Goal: windows grow with sweeps, shrink with waste, and cost a scattered reader one granule a miss.
 * Method: patterns of reads, seeded where they are random, on a set of chunks that arrives at once.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { FetchWindows } from './fetch-window.js';

const GRANULE_BYTES = 512 * 1024;
const GRANULE = GRANULE_BYTES / CHUNK_BYTES;
const WINDOW_MAX = (8 << 20) / CHUNK_BYTES;

/** A blob whose fetches arrive at once. */
class Scene {
  readonly chunks: number;
  readonly windows: FetchWindows;
  nowMs = 0;
  misses = 0;
  /** The most chunks that were fetched and not read. */
  aheadMax = 0;
  readonly #fetched = new Set<number>();
  readonly #read = new Set<number>();

  constructor(chunks: number) {
    this.chunks = chunks;
    const view = { chunks, isRead: (chunk: number) => this.#read.has(chunk) };
    this.windows = new FetchWindows(view, () => this.nowMs);
  }

  get fetched(): number {
    return this.#fetched.size;
  }

  read(chunk: number): void {
    if (!this.#fetched.has(chunk)) {
      this.misses++;
      const { together, ahead } = this.windows.missed(chunk, chunk + 1, GRANULE_BYTES);
      assert.ok(together.first <= chunk && together.end > chunk, 'the miss is part of the plan');
      for (const range of [together, ahead]) this.#fetch(range.first, range.end);
    }
    this.#read.add(chunk);
    for (const { first, end } of this.windows.advance()) this.#fetch(first, end);
    this.aheadMax = Math.max(this.aheadMax, this.#fetched.size - this.#read.size);
  }

  #fetch(first: number, end: number): void {
    assert.ok(first >= 0 && first <= end && end <= this.chunks, `[${first}, ${end})`);
    for (let chunk = first; chunk < end; chunk++) this.#fetched.add(chunk);
  }
}

/** Numbers in [0, 1), the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test('a lone miss brings one granule from the miss on, and a part of one before it', () => {
  const { windows } = new Scene(1000);
  const { together, ahead } = windows.missed(100, 101, GRANULE_BYTES);
  assert.deepEqual(together, { first: 97, end: 100 + GRANULE });
  assert.equal(ahead.first, ahead.end);
  assert.equal(windows.isActive, false);
  const long = windows.missed(500, 520, GRANULE_BYTES);
  assert.deepEqual(long.together, { first: 497, end: 520 }, 'a read of more is not extended');
});

test('a small blob is fetched whole', () => {
  const { windows } = new Scene(GRANULE);
  const { together, ahead } = windows.missed(GRANULE - 1, GRANULE, GRANULE_BYTES);
  assert.deepEqual(together, { first: 0, end: GRANULE });
  assert.equal(ahead.first, ahead.end);
});

test('a sweep misses twice, and its window doubles up to 8 MiB', () => {
  const scene = new Scene(3200);
  for (let chunk = 0; chunk < scene.chunks; chunk++) scene.read(chunk);
  assert.equal(scene.misses, 2);
  assert.equal(scene.fetched, scene.chunks);
  assert.ok(scene.aheadMax > WINDOW_MAX / 2, `${scene.aheadMax} chunks ahead`);
  assert.ok(scene.aheadMax <= WINDOW_MAX + GRANULE, `${scene.aheadMax} chunks ahead`);
});

test('a sweep keeps the link busy once its window is the widest, and while it is read', () => {
  const scene = new Scene(4096);
  let busySince: number | undefined;
  for (let chunk = 0; chunk < 1024; chunk++) {
    scene.nowMs++;
    scene.read(chunk);
    if (scene.windows.isSweeping) busySince ??= chunk;
  }
  assert.ok(busySince! > WINDOW_MAX / 2 && busySince! <= 2 * WINDOW_MAX, `${busySince}`);
  scene.nowMs += 400;
  assert.equal(scene.windows.isSweeping, true, 'a slow link');
  scene.nowMs += 200;
  assert.equal(scene.windows.isSweeping, false);
});

test('sweeps that are read in turn have windows of their own', () => {
  const scene = new Scene(3200);
  const starts = [0, 800, 1600, 2400];
  for (let i = 0; i < 400; i++) for (const start of starts) scene.read(start + i);
  assert.equal(scene.misses, 2 * starts.length);
});

test('a sweep that ends leaves no more than its window unread, and fetches nothing later', () => {
  const scene = new Scene(3200);
  for (let chunk = 0; chunk < 400; chunk++) scene.read(chunk);
  const { fetched } = scene;
  assert.ok(fetched - 400 <= WINDOW_MAX, `${fetched} chunks`);
  scene.nowMs += 10_000;
  assert.equal(scene.windows.isActive, false);
  assert.deepEqual(scene.windows.advance(), []);
});

test('a sweep that becomes sparse shrinks its window', () => {
  const scene = new Scene(6400);
  let chunk = 0;
  for (; chunk < 1000; chunk++) scene.read(chunk);
  for (; chunk < 3000; chunk += 8) scene.read(chunk);
  const before = scene.fetched;
  for (; chunk < 4000; chunk += 100) scene.read(chunk);
  assert.ok(scene.fetched - before <= 15 * GRANULE + WINDOW_MAX / 2, 'one granule a miss again');
});

for (const seed of [1, 2, 3, 4, 5]) {
  test(`scattered reads fetch at most one and a half granules a miss, seed ${seed}`, () => {
    const random = randomOf(seed);
    const scene = new Scene(20_000);
    for (let i = 0; i < 300; i++) scene.read(Math.floor(random() * scene.chunks));
    assert.ok(scene.fetched <= scene.misses * GRANULE * 1.5, `${scene.fetched} chunks`);
  });

  test(`files in any order, read whole, fetch at most twice of what is read, seed ${seed}`, () => {
    const random = randomOf(seed);
    const scene = new Scene(20_000);
    let read = 0;
    for (let i = 0; i < 40; i++) {
      const length = 1 + Math.floor(random() ** 3 * 200);
      const start = Math.floor(random() * (scene.chunks - length));
      for (let chunk = start; chunk < start + length; chunk++) scene.read(chunk);
      read += length;
    }
    const granules = 40 * 1.5 * GRANULE;
    assert.ok(scene.fetched <= 2 * read + granules, `${scene.fetched} fetched, ${read} read`);
  });
}
