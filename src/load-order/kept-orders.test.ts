/**
 * Goal: starts of an image add up to one order, a start that was cut off does no harm, orders stay within their room, the oldest
 * going first, and what a crash left goes, too.
 * Method: small and large orders in a directory of the test.
 */
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { digestOf, orderOfPages, pagesIn, TWO_LAYERS } from '../../test/support/load-orders.js';
import { ErrorCodes } from '../errors.js';
import { KeptOrders } from './kept-orders.js';
import { PAGES_MAX } from './load-order.js';

const MIB = 2 ** 20;
const home = mkdtempSync(join(tmpdir(), 'orders-'));
after(() => rmSync(home, { recursive: true }));

const DIGESTS = TWO_LAYERS.map(({ digest }) => digest);
const range = (length: number) => Array.from({ length }, (_, i) => i);

describe('KeptOrders', () => {
  let directory: string;
  let orders: KeptOrders;

  beforeEach(() => {
    directory = join(mkdtempSync(join(home, 'case-')), 'load-orders');
    orders = new KeptOrders(directory);
  });

  test('finds an order again, merged with the next one of the same layers', async () => {
    assert.equal(await orders.find(DIGESTS), undefined);
    const first = orderOfPages([1, 2]);
    assert.deepEqual(await orders.keep(first), first);
    assert.deepEqual(await orders.find(DIGESTS), first);
    const kept = await orders.keep(orderOfPages([3, 2]));
    assert.deepEqual(await orders.find(DIGESTS), kept);
    assert.deepEqual(pagesIn(kept), ['0:2', '0:1', '0:3']);
    assert.equal(readdirSync(directory).length, 1);
    assert.equal(await orders.find(DIGESTS.toReversed()), undefined);
    await orders.discard(DIGESTS);
    assert.deepEqual(readdirSync(directory), []);
  });

  test('lets a much shorter start take the place of an order at its second time', async () => {
    const long = orderOfPages([1, 2, 3], range(21));
    const short = orderOfPages([1], range(10));
    await orders.keep(long);
    assert.deepEqual(await orders.keep(short), long);
    const both = await orders.keep(long);
    assert.equal(both.starts, 2);
    assert.deepEqual(await orders.keep(short), both, 'not twice in a row');
    assert.deepEqual(await orders.keep(short), short);
    assert.deepEqual(await orders.find(DIGESTS), short);
    assert.equal(readdirSync(directory).length, 1);
  });

  test('removes a damaged order when it is read, and replaces it', async () => {
    await orders.keep(orderOfPages([1]));
    const path = orders.pathOf(DIGESTS);
    for (const damage of ['{', Buffer.alloc(3 * MIB, ' ')]) {
      writeFileSync(path, damage);
      await assert.rejects(orders.find(DIGESTS), { code: ErrorCodes.Corrupt });
      assert.ok(!existsSync(path));
      writeFileSync(path, damage);
      assert.equal((await orders.keep(orderOfPages([1]))).starts, 1);
    }
    const other = [digestOf(7)];
    writeFileSync(orders.pathOf(other), JSON.stringify({}));
    await assert.rejects(orders.find(other), { code: ErrorCodes.Corrupt });
    assert.ok(!existsSync(orders.pathOf(other)));
  });

  test('refuses the order of another image under its name', async () => {
    await orders.keep(orderOfPages([1]));
    const other = [digestOf(7)];
    copyFileSync(orders.pathOf(DIGESTS), orders.pathOf(other));
    await assert.rejects(orders.find(other), {
      code: ErrorCodes.Corrupt,
      message: /another image/,
    });
  });

  test('lets the oldest make room for the next', async () => {
    const large = (n: number) =>
      orderOfPages([], [], {
        layers: [{ digest: digestOf(n), root: undefined }],
        runs: range(PAGES_MAX).map((i) => ({
          layer: 0,
          leaf: 4_000_000_000 - 2 * i,
          count: 1,
          ms: 4_000_000_000,
          starts: 1,
        })),
      });
    await orders.keep(large(0));
    const first = orders.pathOf([digestOf(0)]);
    utimesSync(first, 1000, 1000);
    // Another file of the directory counts with the orders.
    const filler = orders.pathOf([digestOf(99)]);
    writeFileSync(filler, Buffer.alloc(63 * MIB));
    utimesSync(filler, 2000, 2000);
    await orders.keep(large(1));
    assert.ok(!existsSync(first));
    assert.ok(existsSync(filler));
    await orders.keep(large(2));
    assert.deepEqual(
      readdirSync(directory).sort(),
      [digestOf(1), digestOf(2)]
        .map((digest) => orders.pathOf([digest]).slice(directory.length + 1))
        .sort(),
    );
  });

  test('removes what a crash left', async () => {
    await orders.keep(orderOfPages([1]));
    const left = join(directory, '.new-0123456789abcdef');
    writeFileSync(left, 'half');
    utimesSync(left, 1000, 1000);
    writeFileSync(join(directory, '.new-fedcba9876543210'), 'being written');
    await orders.keep(orderOfPages([1]));
    assert.equal(readdirSync(directory).length, 2);
    assert.ok(!existsSync(left));
  });
});
