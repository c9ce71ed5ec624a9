/**
 * Goal: after a loss of power at any moment, every chunk in the set has its bytes; damage and failing
 * disks cost chunks and never bring wrong ones.
 * Method: random scripts on a disk that tears everything unsynced (test/support/cache-crashing-file.ts).
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { distinctBytes } from '../../test/support/blob-double.js';
import { CrashingFile, seededRandom } from '../../test/support/cache-crashing-file.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { BlobFile } from './blob-file.js';

const CHUNKS = 5;
const BYTES = distinctBytes((CHUNKS - 1) * CHUNK_BYTES + 1000);
const BLOB = {
  origin: 'registry.example',
  digest: `sha256:${'c'.repeat(64)}`,
  sizeBytes: BYTES.length,
};
const SEEDS = Number(process.env['FUZZ_SEEDS'] ?? 80);

const fileBytes = BlobFile.fileBytes(BLOB.sizeBytes);
const chunkBytes = (chunk: number) =>
  BYTES.subarray(chunk * CHUNK_BYTES, Math.min((chunk + 1) * CHUNK_BYTES, BYTES.length));

function reopened(disk: CrashingFile): BlobFile {
  const file = BlobFile.reopen(disk, BLOB);
  // A torn first save leaves no usable state: the cache then begins a new file.
  return typeof file === 'string'
    ? BlobFile.fresh(new CrashingFile(fileBytes, () => 0), BLOB)
    : file;
}

function assertSound(file: BlobFile, disk: CrashingFile, context: string): void {
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    if (!file.chunks.has(chunk)) continue;
    const found = Buffer.alloc(chunkBytes(chunk).length);
    assert.equal(disk.readSync(found, chunk * CHUNK_BYTES), found.length, context);
    assert.ok(found.equals(chunkBytes(chunk)), `chunk ${chunk} is not what was stored: ${context}`);
  }
}

describe('BlobFile', () => {
  test('bytes that take the place of others begin a new generation, and new ones do not', async () => {
    const file = BlobFile.fresh(new CrashingFile(fileBytes, () => 0), BLOB);
    const { chunks } = file;
    await file.store(0, chunkBytes(0));
    assert.equal(chunks.generation, 0);
    await file.store(0, chunkBytes(0));
    assert.equal(chunks.generation, 1);
    await file.store(1, chunkBytes(1));
    assert.equal(chunks.generation, 1);
  });

  test('loses no chunk of a save that a second save followed', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const random = seededRandom(seed);
      const disk = new CrashingFile(fileBytes, random);
      let file = BlobFile.fresh(disk, BLOB);
      let kept: number[] = [];
      for (let step = 0; step < 20; step++) {
        const dice = random();
        if (dice < 0.4) {
          const chunk = Math.floor(random() * CHUNKS);
          await file.store(chunk, chunkBytes(chunk));
        } else if (dice < 0.8) {
          const before = [...Array(CHUNKS).keys()].filter((chunk) => file.chunks.has(chunk));
          await file.save();
          await file.save();
          kept = before;
        } else {
          disk.powerLoss();
          const found = BlobFile.reopen(disk, BLOB);
          if (typeof found === 'string') {
            assert.deepEqual(kept, [], `lost all: seed ${seed}, step ${step}: ${found}`);
            break;
          }
          file = found;
        }
        assertSound(file, disk, `seed ${seed}, step ${step}`);
        const lost = kept.filter((chunk) => !file.chunks.has(chunk));
        assert.deepEqual(lost, [], `lost: seed ${seed}, step ${step}`);
      }
    }
  });

  test('has no bit over a hole after a loss of power during saves and stores', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const random = seededRandom(seed + 1e6);
      const disk = new CrashingFile(fileBytes, random);
      const file = BlobFile.fresh(disk, BLOB);
      const work: Promise<void>[] = [];
      for (let step = 0; step < 12; step++) {
        const chunk = Math.floor(random() * CHUNKS);
        work.push(random() < 0.5 ? file.save() : file.store(chunk, chunkBytes(chunk)));
        if (random() < 0.5) await new Promise(setImmediate);
      }
      disk.powerLoss();
      assertSound(reopened(disk), disk, `seed ${seed}`);
      await Promise.all(work);
    }
  });

  test('evicts chunks so that no crash leaves a bit over a hole', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const random = seededRandom(seed + 3e6);
      const disk = new CrashingFile(fileBytes, random);
      if (seed % 2 === 0) disk.onSync = () => (random() < 0.2 ? 'lost' : 'good');
      const file = BlobFile.fresh(disk, BLOB);
      const work: Promise<unknown>[] = [];
      for (let turn = 0; turn < 16; turn++) {
        const dice = random();
        const chunk = Math.floor(random() * CHUNKS);
        let step: Promise<unknown>;
        if (dice < 0.4) step = file.store(chunk, chunkBytes(chunk));
        else if (dice < 0.6) step = file.save();
        else step = file.evict([...Array(CHUNKS).keys()].filter(() => random() < 0.4));
        // A disk that fails.
        work.push(step.catch(() => {}));
        if (random() < 0.5) await new Promise(setImmediate);
        assertSound(file, disk, `seed ${seed}, turn ${turn}`);
      }
      disk.powerLoss();
      assertSound(reopened(disk), disk, `after a crash: seed ${seed}`);
      await Promise.all(work);
    }
  });

  test('lets neither slot claim an evicted chunk', async () => {
    for (const damaged of [0, 1]) {
      const disk = new CrashingFile(fileBytes, () => 0);
      const file = BlobFile.fresh(disk, BLOB);
      for (const chunk of [0, 1, 2]) await file.store(chunk, chunkBytes(chunk));
      await file.save();
      assert.equal(await file.evict([1, 3]), 1);
      await disk.write(Buffer.of(0xff), fileBytes - 8192 + 4096 * damaged + 64);
      const found = reopened(disk);
      assert.deepEqual(
        [0, 1, 2].map((chunk) => found.chunks.has(chunk)),
        [true, false, true],
      );
    }
  });

  test('invalidates the chunks that a failing disk dropped, and loses no saved chunk', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const random = seededRandom(seed + 2e6);
      const disk = new CrashingFile(fileBytes, random);
      const file = BlobFile.fresh(disk, BLOB);
      disk.onSync = () => (random() < 0.4 ? 'lost' : 'good');
      let kept: number[] = [];
      for (let step = 0; step < 12; step++) {
        const chunk = Math.floor(random() * CHUNKS);
        await file.store(chunk, chunkBytes(chunk));
        if (random() < 0.5) continue;
        const before = [...Array(CHUNKS).keys()].filter((each) => file.chunks.has(each));
        const saves = [
          await file.save().catch(() => 'lost'),
          await file.save().catch(() => 'lost'),
        ];
        if (!saves.includes('lost')) kept = before;
        assertSound(file, disk, `after a save: seed ${seed}, step ${step}`);
      }
      disk.powerLoss();
      const found = reopened(disk);
      assertSound(found, disk, `seed ${seed}`);
      const lost = kept.filter((chunk) => !found.chunks.has(chunk));
      assert.deepEqual(lost, [], `lost: seed ${seed}`);
    }
  });

  test('reports why it cannot use a file', async () => {
    const short = new CrashingFile(fileBytes - 4096, () => 0);
    assert.equal(
      BlobFile.reopen(short, BLOB),
      `it has ${fileBytes - 4096} bytes, not ${fileBytes}`,
    );
    const noise = new CrashingFile(fileBytes, () => 0);
    await noise.write(distinctBytes(8192), fileBytes - 8192);
    assert.equal(BlobFile.reopen(noise, BLOB), 'neither of its two slots is whole');
  });

  test('uses the other slot where one is damaged', async () => {
    const disk = new CrashingFile(fileBytes, () => 0);
    const file = BlobFile.fresh(disk, BLOB);
    await file.store(0, chunkBytes(0));
    await file.save();
    await file.store(1, chunkBytes(1));
    await file.save();
    // Sequence 2 is in slot 0.
    await disk.write(Buffer.of(0xff), fileBytes - 8192 + 64);
    const found = reopened(disk);
    assert.deepEqual([found.chunks.has(0), found.chunks.has(1)], [true, false]);
  });

  test('saves and reopens an empty blob', async () => {
    const empty = { ...BLOB, sizeBytes: 0 };
    const disk = new CrashingFile(BlobFile.fileBytes(0), () => 0);
    await BlobFile.fresh(disk, empty).save();
    assert.ok(BlobFile.reopen(disk, empty) instanceof BlobFile);
  });
});
