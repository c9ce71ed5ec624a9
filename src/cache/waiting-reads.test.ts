/**
 * Goal: a read of a mounted disk waits for its bytes until its deadline, for any answer of the registry, and sends no
 * more requests than it has to; a blob that is sent whole is stored as it arrives.
 * Method: a registry's blob in memory that fails as told; real cache files.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobDouble, distinctBytes, gone, stall } from '../../test/support/blob-double.js';
import { removeCacheDirectories } from '../../test/support/cache-directories.js';
import { assertReads, CONTENT, OpenBlob, withCache } from '../../test/support/cache-scene.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { CHUNK_BYTES, type RandomAccessFile, readFully } from '../io/random-access-file.js';
import type { WholeAnswer } from '../io/ranged-source.js';

after(removeCacheDirectories);

const loadMounted = (blob: OpenBlob, chunk: number, waitMs: number) =>
  blob.handle.fetch(chunk * CHUNK_BYTES, 1, { urgency: 'demand', waitMs });

/** An outage log that keeps its lines. */
function recordedOutages() {
  const lines: string[] = [];
  const outageLog = {
    unavailable: () => lines.push('unavailable'),
    recovered: () => lines.push('recovered'),
    left: () => lines.push('left'),
  };
  return { lines, outageLog };
}

function wholeOf(bytes: Uint8Array, pauseMs = 0, sizeKnown = true): WholeAnswer {
  return {
    host: 'proxy.example',
    sizeKnown,
    cutOff: () => {},
    refuse: () => false,
    pieces: async function* () {
      for (let at = 0; at < bytes.length; at += 100_000) {
        if (pauseMs > 0) await sleep(pauseMs);
        yield bytes.subarray(at, at + 100_000);
      }
    },
  };
}

test('a read waits through answers without the bytes', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    let failures = 3;
    ranges.before = async () => {
      if (failures-- > 0) await gone();
    };
    await loadMounted(blob, 3, 10_000);
    await assertReads(blob, 3 * CHUNK_BYTES, 100);
    assert.equal(ranges.requests.length, 4);
  });
});

test('a read fails at its deadline, queued or not, with the reason, and later reads succeed', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    ranges.before = gone;
    const startedMs = performance.now();
    const reads = Array.from({ length: 20 }, (_, i) =>
      assert.rejects(loadMounted(blob, 2 * i, 1_200), {
        code: ErrorCodes.Unavailable,
        message: /not done within 1\.[2-9][0-9]* s.*does not have it/,
      }),
    );
    await sleep(1_050);
    assert.equal(blob.waits().reads, 20);
    assert.match(String(blob.waits().error), /does not have it/);
    await Promise.all(reads);
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs >= 1_200 && tookMs < 2_000, `${tookMs} ms`);
    assert.ok(ranges.requests.length < 16, `${ranges.requests.length} requests`);
    ranges.before = async () => {};
    await loadMounted(blob, 39, 10_000);
    assert.equal(blob.waits().reads, 0);
  });
});

test('after a whole deadline in vain a read waits 10 s at most, while a probe continues', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    ranges.before = stall;
    await assert.rejects(loadMounted(blob, 1, 1_100));
    const before = ranges.requests.length;
    const startedMs = performance.now();
    await assert.rejects(loadMounted(blob, 9, 600_000), { code: ErrorCodes.Unavailable });
    assert.ok(Math.abs(performance.now() - startedMs - 10_000) < 1_500);
    assert.equal(ranges.requests.length, before, 'the probe is the one request');
    blob.close();
  });
});

test('a read of a dead blob waits longer than 10 s while the whole blob arrives', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    ranges.before = gone;
    await assert.rejects(loadMounted(blob, 1, 1_100));
    ranges.before = async () => {};
    // About 12 s for all of it.
    ranges.whole = () => wholeOf(CONTENT, 450);
    await loadMounted(blob, 40, 60_000);
    await assertReads(blob, 0, CONTENT.length);
  });
});

test('a range that always fails does not block other ranges', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    ranges.before = async ({ offset }) => {
      if (offset === 0) await gone();
    };
    const bad = assert.rejects(loadMounted(blob, 0, 2_000));
    await Promise.all([5, 15, 25, 35].map((chunk) => loadMounted(blob, chunk, 2_000)));
    await bad;
  });
});

test('closing a handle ends its reads, and another handle fetches by itself', async () => {
  await withCache(async (cache) => {
    const broken = new BlobDouble(CONTENT, 'registry.example/broken');
    broken.before = gone;
    const [bad, good] = await Promise.all([
      OpenBlob.open(cache, broken),
      OpenBlob.open(cache, new BlobDouble(CONTENT)),
    ]);
    const ended = assert.rejects(loadMounted(bad, 0, 60_000), {
      code: ErrorCodes.FailedPrecondition,
    });
    const read = loadMounted(good, 0, 10_000);
    bad.close();
    await Promise.all([ended, read]);
  });
});

test('a registry is logged once when it fails, and once when it recovers', async () => {
  const lines: string[] = [];
  const outageLog = {
    unavailable: ({ origin, waiting }: { origin: string; waiting: number }) =>
      lines.push(`${origin} ${waiting}`),
    recovered: () => lines.push('recovered'),
    left: () => lines.push('left'),
  };
  await withCache(
    async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      for (let round = 0; round < 3; round++) {
        let failures = 2;
        ranges.before = async () => {
          if (failures-- > 0) await gone();
        };
        await loadMounted(blob, 4 * round, 10_000);
      }
    },
    { capacityBytes: 1 << 30, reserveBytes: 0, outageLog },
  );
  assert.deepEqual(lines, ['registry.example 1', 'recovered']);
});

test('hundreds of reads of many blobs send a dead registry at most 20 requests a second', async () => {
  await withCache(async (cache) => {
    const askedMs: number[] = [];
    const blobs = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const ranges = new BlobDouble(distinctBytes(CONTENT.length, i + 2));
        ranges.before = async () => {
          askedMs.push(performance.now());
          await gone();
        };
        return await OpenBlob.open(cache, ranges);
      }),
    );
    const startedMs = performance.now();
    const reads = blobs.flatMap((blob) =>
      [3, 9, 15, 21, 27].map((chunk) => assert.rejects(loadMounted(blob, chunk, 4_500))),
    );
    await Promise.all(reads);
    // The requests that each blob has in flight at its first failure come on top of that.
    const first = askedMs.filter((ms) => ms < startedMs + 1_000).length;
    assert.ok(first <= 60 * 5 + 30, `${first} requests at first`);
    for (let fromMs = startedMs + 1_000; fromMs < startedMs + 4_400; fromMs += 500) {
      const asked = askedMs.filter((ms) => ms >= fromMs && ms < fromMs + 500).length;
      assert.ok(asked <= 15, `${asked} requests in half a second`);
      assert.ok(asked >= 4 || fromMs > startedMs + 3_000, `${asked} requests in half a second`);
    }
  });
});

test('waits() counts a read whose block keeps failing its check, with the reason', async () => {
  await withCache(async (cache) => {
    const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
    let isDamaged = true;
    const disk: RandomAccessFile & { readWaitMs: number } = {
      readWaitMs: 20_000,
      label: blob.label,
      sizeBytes: blob.sizeBytes,
      tryRead: (target, offset) => {
        if (!blob.tryRead(target, offset)) return false;
        if (isDamaged) throw new ObdError(ErrorCodes.Corrupt, 'Cannot read: damaged');
        return true;
      },
      load: (offset, length, deadlineMs) => blob.load(offset, length, deadlineMs),
      invalidate: (offset, length) => blob.invalidate(offset, length),
      close: () => {},
    };
    const read = readFully(disk, Buffer.alloc(100), 70_000);
    await sleep(800);
    assert.equal(blob.waits().reads, 0);
    await sleep(1_200);
    const { reads, ms, error } = blob.waits();
    assert.equal(reads, 1);
    assert.ok(ms > 1_500 && ms < 3_000, `${ms} ms`);
    assert.match(String(error), /fail their check/);
    isDamaged = false;
    await read;
  });
});

test('an outage whose last blob is closed ends with its own log line', async () => {
  const { lines, outageLog } = recordedOutages();
  await withCache(
    async (cache) => {
      const down = new BlobDouble(CONTENT);
      down.before = gone;
      const blobs = [
        await OpenBlob.open(cache, down),
        await OpenBlob.open(cache, new BlobDouble(CONTENT)),
      ];
      const ended = blobs.map((blob) =>
        assert.rejects(loadMounted(blob, 1, 60_000), { code: ErrorCodes.FailedPrecondition }),
      );
      await sleep(20);
      for (const blob of blobs) blob.close();
      await Promise.all(ended);
    },
    { capacityBytes: 1 << 30, reserveBytes: 0, outageLog },
  );
  assert.deepEqual(lines, ['unavailable', 'left']);
});

test('a blob that is no longer read does not keep an outage open', async () => {
  const { lines, outageLog } = recordedOutages();
  await withCache(
    async (cache) => {
      const [abandoned, read] = [new BlobDouble(CONTENT), new BlobDouble(distinctBytes(1000, 3))];
      abandoned.before = gone;
      read.before = gone;
      const blobs = await Promise.all([abandoned, read].map((each) => OpenBlob.open(cache, each)));
      const vain = assert.rejects(loadMounted(blobs[0]!, 1, 500));
      const waits = loadMounted(blobs[1]!, 0, 10_000);
      await vain;
      read.before = async () => {};
      await waits;
      assert.deepEqual(lines, ['unavailable', 'recovered']);
    },
    { capacityBytes: 1 << 30, reserveBytes: 0, outageLog },
  );
});

test('an outage whose last reads failed ends, although its blob stays open', async () => {
  const { lines, outageLog } = recordedOutages();
  await withCache(
    async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      ranges.before = gone;
      const blob = await OpenBlob.open(cache, ranges);
      await assert.rejects(loadMounted(blob, 1, 500));
      assert.deepEqual(lines, ['unavailable', 'left']);
    },
    { capacityBytes: 1 << 30, reserveBytes: 0, outageLog },
  );
});

test('a whole blob sent once by a server that has ranges is refused, and the range requested again', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    await loadMounted(blob, 0, 10_000);
    let wholes = 1;
    ranges.whole = () => (wholes-- > 0 ? wholeOf(CONTENT) : undefined);
    await loadMounted(blob, 30, 10_000);
    assert.ok(blob.cachedBytes < 20 * CHUNK_BYTES, `${blob.cachedBytes} bytes are cached`);
    ranges.whole = () => wholeOf(CONTENT);
    await loadMounted(blob, 35, 10_000);
    await assertReads(blob, 0, CONTENT.length);
    assert.equal(blob.cachedBytes, CONTENT.length);
  });
});

test('chunks of a stream that no read asked for evict only a share of the cache', async () => {
  await withCache(
    async (cache) => {
      const other = new BlobDouble(distinctBytes(16 * CHUNK_BYTES, 9), 'other.example/app');
      const kept = await OpenBlob.open(cache, other);
      await loadMounted(kept, 0, 10_000);
      await kept.load(0, other.sizeBytes);
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      ranges.whole = () => wholeOf(CONTENT);
      await loadMounted(blob, 39, 10_000);
      assert.ok(kept.cachedBytes >= 8 * CHUNK_BYTES, `${kept.cachedBytes} bytes are left`);
    },
    { capacityBytes: 20 * CHUNK_BYTES, reserveBytes: 0 },
  );
});

for (const damage of ['cached', 'sent'] as const) {
  test(`a stream whose first chunk differs from the cached one, and the ${damage} one is wrong`, async () => {
    await withCache(async (cache, _directory, faults) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      if (damage === 'cached') {
        ranges.damage = (target) => target.subarray(0, CHUNK_BYTES).fill(0xee);
      }
      await loadMounted(blob, 0, 10_000);
      ranges.damage = () => {};
      const wrong = distinctBytes(CONTENT.length, 7);
      let streams = 0;
      ranges.whole = () => wholeOf(damage === 'sent' && streams++ === 0 ? wrong : CONTENT);
      await loadMounted(blob, 40, 10_000);
      await assertReads(blob, 0, CONTENT.length);
      assert.equal(faults.length, damage === 'cached' ? 1 : 0);
    });
  });
}

for (const sizeKnown of [true, false]) {
  test(`a whole blob is taken in one stream, size ${sizeKnown ? 'known' : 'unknown'}`, async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      ranges.whole = () => wholeOf(CONTENT, 5, sizeKnown);
      await Promise.all([3, 40, 20].map((chunk) => loadMounted(blob, chunk, 10_000)));
      await assertReads(blob, 0, CONTENT.length);
      // The cache checks a blob of unknown size, with nothing to compare it with, before it keeps it.
      assert.ok(
        ranges.requests.length <= (sizeKnown ? 3 : 6),
        `${ranges.requests.length} requests`,
      );
      assert.equal(blob.fetchedBytes, CONTENT.length);
    });
  });
}

test('a stream that breaks leaves its stored chunks, and is started again', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    let streams = 0;
    ranges.whole = () => wholeOf(++streams === 1 ? CONTENT.subarray(0, 1_500_000) : CONTENT, 1);
    await loadMounted(blob, 40, 10_000);
    await assertReads(blob, 0, CONTENT.length);
    assert.deepEqual([streams, blob.fetchedBytes], [2, CONTENT.length]);
  });
});

test('a stream with other bytes than the blob leaves nothing', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    await loadMounted(blob, 0, 10_000);
    let streams = 0;
    const wrong = distinctBytes(CONTENT.length, 7);
    // The second has the same beginning as the blob.
    wrong.copy(wrong, 0);
    const late = Buffer.concat([CONTENT.subarray(0, CHUNK_BYTES), wrong.subarray(CHUNK_BYTES)]);
    ranges.whole = () => [wholeOf(wrong), wholeOf(late)][streams++];
    await loadMounted(blob, 40, 10_000);
    await assertReads(blob, 0, CONTENT.length);
    assert.equal(streams >= 2, true);
  });
});

test('a stream without a length that is not read to its end leaves nothing', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    await loadMounted(blob, 0, 10_000);
    const late = Buffer.concat([
      CONTENT.subarray(0, CHUNK_BYTES),
      distinctBytes(CONTENT.length - CHUNK_BYTES, 7),
    ]);
    let streams = 0;
    const breaksOff: WholeAnswer = {
      ...wholeOf(late, 0, false),
      pieces: async function* () {
        yield late.subarray(0, 30 * CHUNK_BYTES);
        throw new ObdError(ErrorCodes.Unavailable, 'the proxy is gone');
      },
    };
    // The first 200 of a server that has ranges is refused, so that the second one is the stream.
    ranges.whole = () => (streams++ < 2 ? breaksOff : undefined);
    await loadMounted(blob, 40, 10_000);
    assert.equal(streams, 3);
    await assertReads(blob, 0, CONTENT.length);
  });
});

test('a stream without a length is read to its end where the cache has no room, and keeps what was read', async () => {
  await withCache(
    async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      await loadMounted(blob, 0, 10_000);
      let wholes = 0;
      // The first 200 of a server that has ranges is refused.
      ranges.whole = () => (wholes++ === 0 ? wholeOf(CONTENT) : wholeOf(CONTENT, 5, false));
      await assertReads(blob, 20 * CHUNK_BYTES, 100);
      await sleep(500);
      await assertReads(blob, 20 * CHUNK_BYTES, 100);
      assert.equal(wholes, 2);
    },
    { capacityBytes: 0, reserveBytes: 0 },
  );
});
