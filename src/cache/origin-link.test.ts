/**
 * Goal: the link's figures follow what it carries, also when that changes tenfold.
 * Method: transfers on a clock of the test, over a link of a given rate and delay.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OriginLink } from './origin-link.js';

const KIB = 1024;

/** Fetches `requests` of `bytes` one after the other, in pieces of 16 KiB. */
class Scene {
  nowMs = 0;
  readonly link = new OriginLink(() => this.nowMs);

  fetch(requests: number, bytes: number, bytesPerMs: number, delayMs: number): void {
    for (let i = 0; i < requests; i++) {
      const transfer = this.link.started(bytes);
      this.nowMs += delayMs;
      for (let at = 0; at < bytes; at += 16 * KIB) {
        this.nowMs += (16 * KIB) / bytesPerMs;
        transfer.received(16 * KIB);
      }
      transfer.ended();
    }
  }
}

test('before anything is measured, a miss brings 512 KiB', () => {
  const { link } = new Scene();
  assert.equal(link.granuleBytes, 512 * KIB);
  assert.equal(link.aheadBytesMax, 1024 * KIB);
});

test('the granule is between 512 KiB and 1 MiB on links from 100 Mbit/s to a far gigabit', () => {
  const slow = new Scene();
  slow.fetch(20, 512 * KIB, 11_400, 20);
  assert.equal(slow.link.granuleBytes, 512 * KIB);
  assert.ok(slow.link.aheadBytesMax <= 2048 * KIB, `${slow.link.aheadBytesMax}`);
  const far = new Scene();
  far.fetch(20, 16_384 * KIB, 110_000, 50);
  assert.equal(far.link.granuleBytes, 1024 * KIB);
  assert.ok(far.link.aheadBytesMax > 8_000 * KIB, `${far.link.aheadBytesMax}`);
});

test('a near link has room for two large answers side by side, a far one for more', () => {
  const near = new Scene();
  assert.equal(near.link.largeRequestsMax, 2, 'not measured yet');
  near.fetch(20, 1024 * KIB, 115_000, 3);
  assert.equal(near.link.largeRequestsMax, 2);
  const far = new Scene();
  far.fetch(20, 1024 * KIB, 115_000, 52);
  assert.ok(far.link.largeRequestsMax > 12, `${far.link.largeRequestsMax}`);
});

test('a very slow link has a smaller granule', () => {
  const scene = new Scene();
  scene.fetch(4, 512 * KIB, 400, 20);
  const { granuleBytes } = scene.link;
  assert.ok(granuleBytes >= 64 * KIB && granuleBytes <= 100 * KIB, `${granuleBytes}`);
});

test('a long wait for the first byte of a fast link does not make it a slow one', () => {
  const scene = new Scene();
  scene.fetch(1, 64 * KIB, 100_000, 60);
  scene.fetch(20, 128 * KIB, 100_000, 2);
  assert.equal(scene.link.granuleBytes, 512 * KIB);
});

test('a link that becomes ten times slower, or faster again, is known after a few seconds', () => {
  const scene = new Scene();
  scene.fetch(20, 1024 * KIB, 5_000, 20);
  const before = scene.link.granuleBytes;
  scene.fetch(4, 512 * KIB, 500, 20);
  assert.ok(scene.link.granuleBytes < before / 2, `${scene.link.granuleBytes}`);
  scene.fetch(4, 1024 * KIB, 5_000, 20);
  assert.equal(scene.link.granuleBytes, before);
});

test('bytes in flight are those that have not come, of all transfers', () => {
  const { link } = new Scene();
  const transfers = [link.started(100), link.started(50)];
  transfers[0]?.received(30);
  assert.equal(link.inFlightBytes, 120);
  transfers[1]?.received(80);
  assert.equal(link.inFlightBytes, 70, 'more than was asked for counts as what was asked for');
  for (const transfer of transfers) transfer.ended();
  for (const transfer of transfers) transfer.ended();
  assert.equal(link.inFlightBytes, 0);
});
