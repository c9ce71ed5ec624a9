/**
 * Goal: a load order survives its document, the same order gives the same bytes, and no document of a hostile registry gets
 * past the limits or fails with anything but a typed error.
 * Method: random orders; one document with one thing wrong each; random JSON and random damage.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { digestOf, orderOfPages, recordedOrders } from '../../test/support/load-orders.js';
import { ErrorCodes, ObdError } from '../errors.js';
import {
  CHUNKS_MAX,
  DOCUMENT_BYTES_MAX,
  encodeLoadOrder,
  LAYERS_MAX,
  type LoadOrder,
  PAGES_MAX,
  parseLoadOrder,
  STARTS_MAX,
} from './load-order.js';

const parse = (bytes: Uint8Array) => parseLoadOrder(bytes, 'sha256:test');
const parseJson = (document: unknown) => parse(Buffer.from(JSON.stringify(document)));

const SAMPLE = {
  version: 1,
  kind: 'recorded',
  starts: 2,
  readAheadBytes: 131_072,
  layers: [{ digest: digestOf(1), root: digestOf(101) }, { digest: digestOf(2) }],
  runs: [1, 40, 3, 0, 2, 0, 7, 1, 12, 1],
  chunks: [1, 0, 2, 0, 9, 1],
};

describe('a load order', () => {
  test('is read from the document that the specification shows', () => {
    assert.deepEqual(parseJson(SAMPLE), {
      kind: 'recorded',
      starts: 2,
      readAheadBytes: 131_072,
      layers: [
        { digest: digestOf(1), root: digestOf(101) },
        { digest: digestOf(2), root: undefined },
      ],
      runs: [
        { layer: 1, leaf: 40, count: 3, ms: 0, starts: 2 },
        { layer: 0, leaf: 7, count: 1, ms: 12, starts: 1 },
      ],
      chunks: Uint32Array.from([1, 0, 1, 1, 0, 9]),
    });
    assert.equal(encodeLoadOrder(parseJson(SAMPLE)).toString(), JSON.stringify(SAMPLE));
  });

  test('survives its document', () => {
    fc.assert(
      fc.property(recordedOrders, (order) => {
        const bytes = encodeLoadOrder(order);
        assert.deepEqual(parse(bytes), order);
        assert.deepEqual(encodeLoadOrder(parse(bytes)), bytes);
      }),
    );
  });

  test('fits its document at the largest size', () => {
    const last = 2 ** 32 - 1;
    const order: LoadOrder = {
      kind: 'recorded',
      starts: STARTS_MAX,
      readAheadBytes: last,
      layers: Array.from({ length: LAYERS_MAX }, (_, i) => ({
        digest: digestOf(i),
        root: digestOf(i),
      })),
      runs: Array.from({ length: PAGES_MAX }, (_, i) => ({
        layer: LAYERS_MAX - 1,
        leaf: last - 2 * i,
        count: 1,
        ms: last,
        starts: STARTS_MAX,
      })),
      chunks: Uint32Array.from({ length: 2 * CHUNKS_MAX }, (_, i) =>
        i % 2 === 0 ? LAYERS_MAX - 1 : last - i,
      ),
    };
    const bytes = encodeLoadOrder(order);
    assert.ok(bytes.length <= DOCUMENT_BYTES_MAX, `${bytes.length} bytes`);
    assert.deepEqual(parse(bytes), order);
  });

  test('that breaks a rule is not written', () => {
    assert.throws(() => encodeLoadOrder(orderOfPages([1, 2, 1])), RangeError);
    assert.throws(() => encodeLoadOrder(orderOfPages([1], [5, 5])), RangeError);
    assert.throws(() => encodeLoadOrder(orderOfPages([1], [], { starts: 0 })), RangeError);
  });

  test('keeps no field that it does not know', () => {
    const order = parseJson({ ...SAMPLE, host: 'node-1', path: '/srv' });
    assert.equal(encodeLoadOrder(order).toString(), JSON.stringify(SAMPLE));
  });
});

describe('a hostile document', () => {
  const wrong: ReadonlyArray<readonly [string, Readonly<Record<string, unknown>>, RegExp]> = [
    ['no version', { version: undefined }, /version/],
    ['an unknown kind', { kind: 'hearsay' }, /unknown kind/],
    ['starts of a prediction', { kind: 'predicted' }, /kind "predicted" and 2 starts/],
    ['a recorded order without starts', { starts: 0 }, /0 starts/],
    ['too many starts', { starts: STARTS_MAX + 1 }, /1001 starts/],
    ['a negative count', { starts: -1 }, /wrong count/],
    ['a fraction', { readAheadBytes: 0.5 }, /wrong count/],
    ['no layers', { layers: undefined }, /layers/],
    ['a layer that is a number', { layers: [1] }, /layer without digest/],
    ['another digest', { layers: [{ digest: 'md5:0' }, SAMPLE.layers[1]] }, /no sha256 digest/],
    ['a path as root', { layers: [{ digest: digestOf(1), root: '../x' }] }, /no sha256 digest/],
    ['too many layers', { layers: new Array(LAYERS_MAX + 1).fill(SAMPLE.layers[0]) }, /layers/],
    ['half a run', { runs: [0, 1, 1, 0] }, /runs/],
    ['text in a run', { runs: [0, '1', 1, 0, 1] }, /runs/],
    ['an empty run', { runs: [0, 1, 0, 0, 1] }, /impossible/],
    ['a run beyond the last page', { runs: [0, 2 ** 32 - 1, 2, 0, 1] }, /impossible/],
    ['a run of a lacking layer', { runs: [2, 1, 1, 0, 1] }, /layer 2, of 2/],
    ['a run of more starts', { runs: [0, 1, 1, 0, 3] }, /3 of 2 starts/],
    ['a run of no start', { runs: [0, 1, 1, 0, 0] }, /0 of 2 starts/],
    ['a page twice', { runs: [0, 1, 4, 0, 1, 0, 4, 1, 0, 1] }, /page that is there twice/],
    ['too many pages', { runs: [0, 0, PAGES_MAX + 1, 0, 1] }, /pages/],
    ['a huge run', { runs: [0, 0, 2 ** 32 - 1, 0, 1] }, /pages/],
    ['too many runs', { runs: new Array(5 * (PAGES_MAX + 1)).fill(0) }, /too many/],
    ['a chunk twice', { chunks: [0, 1, 4, 0, 4, 1] }, /chunk that is there twice/],
    ['too many chunks', { chunks: [0, 0, CHUNKS_MAX + 1] }, /too many/],
    ['a huge range of chunks', { chunks: [0, 0, 2 ** 32 - 1] }, /too many/],
    ['a chunk beyond the last', { chunks: [0, 2 ** 32 - 1, 2] }, /too many/],
    ['a chunk of a lacking layer', { chunks: [2, 1, 1] }, /layer 2, of 2/],
    ['chunks that are an object', { chunks: { length: 3 } }, /chunks/],
  ];
  for (const [what, change, message] of wrong) {
    test(`with ${what} is refused`, () => {
      const parsed = () => parseJson({ ...SAMPLE, ...change });
      assert.throws(parsed, { name: 'ObdError', code: ErrorCodes.Corrupt, message });
    });
  }

  test('with an absurd count of starts is refused', () => {
    for (const starts of ['1e999', '1e9', '1001', '-1', '1.5', '0', 'null', '"2"']) {
      const text = JSON.stringify(SAMPLE).replace('"starts":2', `"starts":${starts}`);
      assert.ok(text.includes(starts));
      assert.throws(() => parse(Buffer.from(text)), { code: ErrorCodes.Corrupt }, starts);
    }
  });

  test('that is too long, deep or no object is refused', () => {
    for (const text of [
      ' '.repeat(DOCUMENT_BYTES_MAX + 1),
      '['.repeat(1 << 20),
      '[]',
      'null',
      '',
    ]) {
      assert.throws(() => parse(Buffer.from(text)), { code: ErrorCodes.Corrupt });
    }
    const deep = `${'['.repeat(1 << 19)}${']'.repeat(1 << 19)}`;
    for (const field of Object.keys(SAMPLE)) {
      const text = JSON.stringify({ ...SAMPLE, [field]: 'deep' }).replace('"deep"', deep);
      assert.throws(() => parse(Buffer.from(text)), { code: ErrorCodes.Corrupt });
    }
  });

  test('is not called damaged if its version is a later one', () => {
    const later = () => parseJson({ ...SAMPLE, version: 2 });
    assert.throws(later, { code: ErrorCodes.Unsupported, message: /version 2/ });
  });

  test('is refused with a typed error, or is within the limits', () => {
    const fields = fc.record(
      {
        version: fc.constant(1),
        kind: fc.constantFrom('recorded', 'predicted', 'list'),
        starts: fc.oneof(fc.nat(3), fc.jsonValue()),
        readAheadBytes: fc.oneof(fc.nat(), fc.jsonValue()),
        layers: fc.oneof(fc.constant(SAMPLE.layers), fc.jsonValue()),
        runs: fc.oneof(fc.array(fc.nat(9), { maxLength: 20 }), fc.jsonValue()),
        chunks: fc.oneof(fc.array(fc.nat(9), { maxLength: 12 }), fc.jsonValue()),
      },
      { requiredKeys: [] },
    );
    const damaged = fc
      .tuple(fc.nat(JSON.stringify(SAMPLE).length - 1), fc.nat(255))
      .map(([at, byte]) => {
        const bytes = Buffer.from(JSON.stringify(SAMPLE));
        bytes[at] = byte;
        return bytes;
      });
    const documents = fc.oneof(
      fields.map((document) => Buffer.from(JSON.stringify(document))),
      fc.uint8Array({ maxLength: 50 }),
      damaged,
    );
    fc.assert(
      fc.property(documents, (bytes) => {
        let order: LoadOrder;
        try {
          order = parse(bytes);
        } catch (error) {
          assert.ok(error instanceof ObdError, String(error));
          return;
        }
        assert.deepEqual(parse(encodeLoadOrder(order)), order);
      }),
      { numRuns: 1000 },
    );
  });
});
