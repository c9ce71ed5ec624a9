/**
 * Goal: a recording belongs to the next device of its image, is ended once, and reports why there is none.
 * Method: doubles of the starts, the publisher and the device.
 */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { readMountTable } from '../io/mount-table.js';
import { encodeLoadOrder, type LoadOrder } from '../load-order/load-order.js';
import { NO_WISH } from '../load-order/select-order.js';
import type { ExpectedImage } from './expected-image.js';
import type { ExpectedStarts } from './expected-starts.js';
import type { OrderPublisher } from './order-publisher.js';
import { type RecordedDevice, type Recording, Recordings } from './recordings.js';

const digest = (n: number) => `sha256:${String(n).padStart(64, '0')}`;
const LAYERS = [{ digest: digest(1), sizeBytes: 9, root: digest(2) }];
const IMAGE: ExpectedImage = {
  ...{ host: 'registry.example', repository: 'app' },
  manifest: { digest: digest(3), sizeBytes: 3 },
  ...{ manifestType: 'm', loadOrder: undefined, wish: NO_WISH, layers: LAYERS },
};
const ORDER: LoadOrder = {
  ...{ kind: 'recorded', starts: 1, readAheadBytes: 0 },
  layers: [{ digest: digest(1), root: digest(2) }],
  runs: [{ layer: 0, leaf: 4, count: 3, ms: 0, starts: 1 }],
  chunks: new Uint32Array(),
};
const never = new AbortController().signal;

describe('Recordings', () => {
  let devices: string[];
  let stored: boolean[];
  let recordings: Recordings;

  beforeEach(() => {
    devices = [];
    stored = [];
    const starts: Pick<ExpectedStarts, 'serving' | 'expect'> = {
      serving: () => devices.map((path) => ({ path })),
      expect: () => {},
    };
    const publisher: Pick<OrderPublisher, 'store'> = {
      store: async (_image, order, _writeHot, publishes) => {
        stored.push(publishes);
        return { artifact: '', order, hotBytes: 7 };
      },
    };
    recordings = new Recordings(starts, publisher);
  });

  /** A device whose recording ends with the order, or with nothing. */
  function device(order: LoadOrder | undefined): RecordedDevice & { recording?: Recording } {
    const made: RecordedDevice & { recording?: Recording } = {
      endRecording: async () => {
        if (order !== undefined) made.recording?.recorded(encodeLoadOrder(order));
      },
      writeHot: assert.fail,
    };
    const recording = recordings.take(LAYERS, made);
    if (recording !== undefined) made.recording = recording;
    return made;
  }

  test('records the next device of the image, and no further one', async () => {
    const key = await recordings.begin(IMAGE, false);
    const other = [{ ...LAYERS[0]!, root: undefined }];
    const unused = { endRecording: assert.fail, writeHot: assert.fail };
    assert.equal(recordings.take(other, unused), undefined);
    device(ORDER);
    assert.equal(recordings.take(LAYERS, unused), undefined);
    const { pages, document, hotBytes } = await recordings.end(key, true, never);
    assert.deepEqual([pages, hotBytes, stored], [3, 7, [true]]);
    assert.deepEqual(Buffer.from(document), encodeLoadOrder(ORDER));
    await assert.rejects(recordings.end(key, true, never), { code: ErrorCodes.NotFound });
  });

  test('end() waits until the recording ends by itself, if begin() said so', async () => {
    const key = await recordings.begin(IMAGE, true);
    const { recording } = device(undefined);
    const ended = recordings.end(key, false, never);
    await new Promise(setImmediate);
    assert.deepEqual(stored, []);
    recording?.recorded(encodeLoadOrder(ORDER));
    assert.equal((await ended).pages, 3);
  });

  test('keeps nothing for a client that has gone', async () => {
    const key = await recordings.begin(IMAGE, true);
    device(ORDER);
    const gone = new AbortController();
    const ended = recordings.end(key, true, gone.signal);
    gone.abort();
    await assert.rejects(ended, { name: 'AbortError' });
    assert.deepEqual(stored, []);
  });

  test('names the image once in the error for an order that it cannot read', async () => {
    const key = await recordings.begin(IMAGE, false);
    const { recording } = device(undefined);
    recording?.recorded(Buffer.from('{"version":2}'));
    const message = /^Cannot use load order of registry\.example\/app: it is of version 2/;
    await assert.rejects(recordings.end(key, true, never), { message });
  });

  test('refuses an image that a device serves, and names device and mounts', async () => {
    const [mount] = (await readMountTable()).filter(({ source }) => source.startsWith('/'));
    devices = [mount?.source ?? '/dev/none'];
    const error = await recordings.begin(IMAGE, false).then(assert.fail, String);
    const places = mount === undefined ? '' : `, mounted at ${mount.target}`;
    assert.ok(error.includes(`a device of it is attached (${devices[0]}${places}`), error);
    for (const path of ['', '/dev/none']) {
      devices = [path];
      const code = ErrorCodes.FailedPrecondition;
      const message = path === '' ? /is attached, and/ : /is attached \(\/dev\/none\), and/;
      await assert.rejects(recordings.begin(IMAGE, false), { code, message });
    }
  });

  test('reports why nothing was recorded', async () => {
    const none = await recordings.begin(IMAGE, false);
    await assert.rejects(recordings.end(none, true, never), { message: /no device of it was att/ });
    const silent = await recordings.begin(IMAGE, false);
    device(undefined);
    await assert.rejects(recordings.end(silent, true, never), { message: /or read nothing/ });
    const lost = await recordings.begin(IMAGE, false);
    recordings.closed(device(ORDER).recording!);
    await assert.rejects(recordings.end(lost, true, never), { code: ErrorCodes.NotFound });
    assert.deepEqual(stored, []);
  });
});
