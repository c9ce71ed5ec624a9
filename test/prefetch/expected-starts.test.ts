/**
 * Goal: what is expected and never started is forgotten, what is started is not, and no number of pulls takes a start's place.
 * Method: starts with a search that never ends, and a clock that the test sets.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import pino from 'pino';
import type { ExpectedImage } from '../../src/blockd/expected-image.js';
import { ExpectedStarts } from '../../src/blockd/expected-starts.js';
import { NO_WISH } from '../../src/load-order/select-order.js';
import { digestOf } from '../support/load-orders.js';

const UNUSED_MS = 120_000;
const UNUSED_MAX = 64;

/** With the signals of the searches, in their order. */
function starts(): { readonly starts: ExpectedStarts; readonly searches: AbortSignal[] } {
  const searches: AbortSignal[] = [];
  const never = new Promise<never>(() => {});
  const dependencies = {
    cache: undefined as never,
    client: undefined as never,
    hotImages: { kept: async () => undefined } as never,
    advices: {
      async *find(_image: ExpectedImage, signal: AbortSignal) {
        searches.push(signal);
        yield await never;
      },
    } as never,
    isUsed: true,
    log: pino({ level: 'silent' }),
  };
  return { starts: new ExpectedStarts(dependencies), searches };
}

function imageOf(n: number): ExpectedImage {
  const layers = [{ digest: digestOf(n), sizeBytes: 1, root: undefined }];
  const manifest = { digest: digestOf(n + 1000), sizeBytes: 1 };
  const rest = { manifest, manifestType: '', loadOrder: undefined, wish: NO_WISH };
  return { host: 'registry.example', repository: 'app', ...rest, layers };
}

/** Ends the turn, so that searches begin. */
const turn = async () => await new Promise((resolve) => setImmediate(resolve));

test('an image that is never started is forgotten after two minutes, and may be expected again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { starts: all, searches } = starts();
  all.expect(imageOf(1));
  all.expect(imageOf(1));
  await turn();
  assert.equal(searches.length, 1);
  t.mock.timers.tick(UNUSED_MS - 1);
  assert.equal(searches[0]!.aborted, false);
  t.mock.timers.tick(1);
  assert.equal(searches[0]!.aborted, true);
  all.expect(imageOf(1));
  await turn();
  assert.equal(searches.length, 2);
});

test('an image that is started stays until its last device goes', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { starts: all, searches } = starts();
  all.expect(imageOf(1));
  const devices = [{ path: '/dev/a' }, { path: '/dev/b' }] as const;
  const [one, other] = devices.map((device) => all.opened(imageOf(1), true, device));
  await turn();
  t.mock.timers.tick(2 * UNUSED_MS);
  assert.deepEqual(all.serving(imageOf(1).layers), devices);
  all.closed(one!, devices[0]);
  assert.equal(searches[0]!.aborted, false);
  all.closed(other!, devices[1]);
  assert.equal(searches[0]!.aborted, true);
  assert.deepEqual(all.serving(imageOf(1).layers), []);
  // A further device is another start, which the clock of the first does not end.
  all.opened(imageOf(1), true, { path: '' });
  await turn();
  t.mock.timers.tick(UNUSED_MS);
  assert.equal(searches.length, 2);
  assert.equal(searches[1]!.aborted, false);
});

test('more pulls than 64 are not followed, and any number of devices is', async () => {
  const { starts: all, searches } = starts();
  for (let n = 0; n < 2 * UNUSED_MAX; n++) all.opened(imageOf(n), true, { path: '' });
  for (let n = 500; n < 500 + 2 * UNUSED_MAX; n++) all.expect(imageOf(n));
  await turn();
  assert.equal(searches.length, 3 * UNUSED_MAX);
  all.opened(imageOf(700), true, { path: '' });
  await turn();
  assert.equal(searches.length, 3 * UNUSED_MAX + 1);
  all.close();
  assert.ok(searches.every(({ aborted }) => aborted));
});

test('an image whose list never comes is opened after a second, and at once later', async () => {
  const { starts: all } = starts();
  const beganMs = performance.now();
  const start = all.opened(imageOf(1), true, { path: '' });
  assert.equal(await start.hot(), undefined);
  const tookMs = performance.now() - beganMs;
  assert.ok(tookMs > 900 && tookMs < 3_000, `${tookMs} ms`);
  const laterMs = performance.now();
  assert.equal(await start.hot(), undefined);
  assert.ok(performance.now() - laterMs < 500);
  all.close();
});
