/**
 * Goal: a slow connection is closed after 10 s, unless the previous one was as slow; a slow reader causes no failure.
 * Method: a real server that sends so many bytes a second, and real time.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SpeedFloor, TooSlow } from '../io/speed-floor.js';
import { HttpClient } from './http-client.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

const TICK_MS = 100;
/** The path of a request is its speed in bytes a second. */
const server = createServer((request, response) => {
  const bytesPerS = Number(request.url!.slice(1));
  const timer = setInterval(
    () => response.write(Buffer.alloc((bytesPerS * TICK_MS) / 1000)),
    TICK_MS,
  );
  response.on('close', () => clearInterval(timer));
});
const http = new HttpClient(DEFAULT_LIMITS);

before(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
after(async () => {
  server.closeAllConnections();
  server.close();
  await http.close();
});

/** Reads for `forMs` at most. @returns The time until the connection was closed; undefined if it was not. */
async function readFor(
  floor: SpeedFloor,
  bytesPerS: number,
  forMs: number,
  onPiece = async () => {},
): Promise<number | undefined> {
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/${bytesPerS}`);
  const doing = 'Cannot read a blob';
  const response = await http.send({ method: 'GET', url, headers: {}, signal: undefined, doing });
  const startedMs = performance.now();
  try {
    for await (const _piece of floor.watch(response)) {
      if (performance.now() - startedMs > forMs) return undefined;
      await onPiece();
    }
    assert.fail('the server ended it');
  } catch (error) {
    if (!(error instanceof TooSlow)) throw error;
    assert.match(error.message, /sends [0-9]+ bytes a second/);
    return performance.now() - startedMs;
  }
}

describe('a connection', { concurrency: true }, () => {
  test('below the floor is closed after 10 s; a new one that is as slow is kept', async () => {
    const floor = new SpeedFloor();
    const leftMs = await readFor(floor, 1_000, 15_000);
    assert.ok(leftMs !== undefined && leftMs > 9_500 && leftMs < 12_000, `${leftMs} ms`);
    assert.equal(await readFor(floor, 1_000, 12_000), undefined);
  });

  test('is closed for another that is slow too, but far less so', async () => {
    const floor = new SpeedFloor();
    assert.notEqual(await readFor(floor, 12_000, 15_000), undefined);
    assert.notEqual(await readFor(floor, 2_000, 15_000), undefined);
  });

  test('as slow as the previous one is kept for keptMs', async () => {
    const isKeptFor = async (keptMs: number) => {
      const floor = new SpeedFloor(keptMs);
      assert.notEqual(await readFor(floor, 1_000, 15_000), undefined);
      return (await readFor(floor, 1_000, 12_000)) === undefined;
    };
    const kept = await Promise.all([1, Number.POSITIVE_INFINITY].map(isKeptFor));
    assert.deepEqual(kept, [false, true]);
  });

  test('above the floor is kept', async () => {
    assert.equal(await readFor(new SpeedFloor(), 30_000, 12_000), undefined);
  });

  test('is not closed for a slow reader', async () => {
    const slowly = async () => await sleep(1_000);
    assert.equal(await readFor(new SpeedFloor(), 30_000, 12_000, slowly), undefined);
  });
});
