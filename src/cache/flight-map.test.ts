/**
 * Goal: what an attempt left of a chunk is stored as that chunk and no other, also when the flight grows before the next attempt.
 * Method: a queued flight with such a rest, grown in each direction.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlobDouble } from '../../test/support/blob-double.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { ChunkStore } from './chunk-store.js';
import type { Fetcher } from './flight.js';
import { FlightMap } from './flight-map.js';

const BLOB_BYTES = 64 * CHUNK_BYTES;
const REST = Buffer.alloc(3, 7);
const owner: Fetcher = {
  source: new BlobDouble(Buffer.alloc(1)),
  missed: () => false,
  image: undefined,
  onRequest: () => {},
  onBytes: () => {},
};

/** A queued flight of chunk 20, of which three bytes have come. */
function flightWithRest() {
  const flights = new FlightMap({ isCached: () => false } as unknown as ChunkStore);
  const flight = flights.add(owner, 20, 21, 'demand');
  flight.rest = REST;
  return { flights, flight };
}

test('a rest is kept where a flight grows behind it', () => {
  const { flights, flight } = flightWithRest();
  assert.equal(flights.join(owner, 21, 23), flight);
  const fill = flight.nextFill(BLOB_BYTES);
  assert.deepEqual([fill.offset, fill.filled], [20 * CHUNK_BYTES, REST.length]);
  assert.ok(REST.equals(fill.bytes.subarray(0, REST.length)));
});

for (const [how, first, grow] of [
  ['joins', 19, (flights: FlightMap) => flights.join(owner, 19, 20)],
  ['is in the granule of', 17, (flights: FlightMap) => flights.grow(flights.at(20)!, 17, 21)],
] as const) {
  test(`a rest is dropped where an earlier chunk ${how} the flight`, () => {
    const { flights, flight } = flightWithRest();
    grow(flights);
    const fill = flight.nextFill(BLOB_BYTES);
    assert.deepEqual([fill.offset, fill.filled], [first * CHUNK_BYTES, 0]);
    assert.ok(fill.bytes.every((byte) => byte === 0));
  });
}
