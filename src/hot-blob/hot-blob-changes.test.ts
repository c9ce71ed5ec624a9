/**
 * Goal: no change of a hot blob makes its reader yield a page that the layer does not have, and each refusal is typed.
 * Method: seeded changes in the content, with all CRCs made right again, and in the frame.
 *
 *     OBD_HOT_ROUNDS=10000 OBD_HOT_SEED=7 node --test dist/src/hot-blob/hot-blob-changes.test.js
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { distinctBytes } from '../../test/support/blob-double.js';
import { seededRandom } from '../../test/support/cache-crashing-file.js';
import { hotSource, joined, piecesOf } from '../../test/support/hot-source.js';
import { ErrorCodes, hasCode, messageOf } from '../errors.js';
import { rawCrc32c } from '../zfile/raw-crc32c.js';
import { readHotBlob } from './hot-blob-reader.js';
import { writeHotBlob } from './hot-blob-writer.js';
import { type HotIndex, parseHotIndex } from './hot-index.js';
import { hotSteps } from './hot-steps.js';

const ROUNDS = Number(process.env['OBD_HOT_ROUNDS'] ?? 400);
const SEED = Number(process.env['OBD_HOT_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const PAGE = 4096;
const FILE = { label: 'hot' };

const sources = [
  await hotSource(distinctBytes(299 * PAGE + 77, 1)),
  await hotSource(distinctBytes(100, 2)),
  await hotSource(distinctBytes(40 * PAGE, 3)),
  // As the first one but for a byte in each of some pages.
  await hotSource(likeFirst()),
];
const runs = Uint32Array.from([
  ...[0, 120, 20, 2, 30, 10, 1, 0, 1, 3, 125, 6, 0, 290, 10, 2, 0, 1, 0, 0, 9, 3, 0, 2],
]);
const blob = await joined(writeHotBlob(sources, runs));
const content = zstdDecompressSync(blob);
/** Runs of the same layers, in another order. */
const other = zstdDecompressSync(
  await joined(
    writeHotBlob(sources, Uint32Array.from([3, 0, 9, 0, 120, 20, 2, 30, 10, 1, 0, 1, 0, 0, 9])),
  ),
);

function likeFirst(): Buffer {
  const bytes = Buffer.from(distinctBytes(299 * PAGE + 77, 1));
  for (let page = 0; page < 299; page += 3) bytes[page * PAGE + 5]! ^= 1;
  return bytes;
}

interface Place {
  readonly kind: 'header' | 'node' | 'page';
  readonly at: number;
  readonly bytes: number;
}

const BYTES = { header: 512, node: PAGE, page: PAGE };

/** Where each record of a content is. */
function placesOf(bytes: Buffer): { readonly index: HotIndex; readonly places: Place[] } {
  const [layers, runCount, pages] = [16, 20, 24].map((at) => bytes.readUInt32LE(at));
  let at = 36 + 72 * layers! + 12 * runCount! + 4 * pages!;
  const index = parseHotIndex(bytes.subarray(0, at), FILE);
  const places: Place[] = [];
  for (const step of hotSteps(index)) {
    const kind = step.kind === 'pages' ? 'page' : step.kind;
    const count = step.kind === 'pages' ? step.count : 1;
    for (let i = 0; i < count; i++, at += BYTES[kind])
      places.push({ kind, at, bytes: BYTES[kind] });
  }
  return { index, places };
}

/** Makes all CRCs right, of a content whose index can be read. */
function seal(bytes: Buffer): void {
  const [layers, runCount, pages] = [16, 20, 24].map((at) => bytes.readUInt32LE(at));
  const crcsAt = 32 + 72 * layers! + 12 * runCount!;
  const crcAt = crcsAt + 4 * pages!;
  if (crcAt + 4 > bytes.length) return;
  const sealIndex = () => bytes.writeUInt32LE(rawCrc32c(bytes.subarray(0, crcAt), 0), crcAt);
  sealIndex();
  try {
    const places = placesOf(bytes).places.filter(({ kind }) => kind === 'page');
    for (const [slot, { at }] of places.entries()) {
      const page = bytes.subarray(at, at + PAGE);
      bytes.writeUInt32LE(rawCrc32c(page, 0), crcsAt + 4 * slot);
    }
  } catch (error) {
    if (!isTyped(error)) throw error;
  }
  sealIndex();
}

const isTyped = (error: unknown) =>
  hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.Unsupported);

const random = seededRandom(SEED);
const below = (limit: number) => Math.floor(random() * limit);
const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
const { places } = placesOf(content);
const otherPlaces = placesOf(other).places;
const ofKind = (kind: Place['kind'], from = places) => from.filter((place) => place.kind === kind);
const indexBytes = places[0]!.at;

function exchange(bytes: Buffer, one: Place, two: Place): void {
  const kept = Buffer.from(bytes.subarray(one.at, one.at + one.bytes));
  bytes.copy(bytes, one.at, two.at, two.at + one.bytes);
  bytes.set(kept, two.at);
}

function replace(bytes: Buffer, place: Place, by: Uint8Array): void {
  bytes.set(by.subarray(0, place.bytes), place.at);
}

const recordOf = (from: Buffer, { at, bytes }: Place) => from.subarray(at, at + bytes);

const CHANGES: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  'a bit anywhere': (bytes) => {
    bytes[below(bytes.length)]! ^= 1 << below(8);
    return bytes;
  },
  'a bit of a page': (bytes) => {
    bytes[pick(ofKind('page')).at + below(PAGE)]! ^= 1 << below(8);
    return bytes;
  },
  'two pages exchanged': (bytes) => {
    exchange(bytes, pick(ofKind('page')), pick(ofKind('page')));
    return bytes;
  },
  'two nodes exchanged': (bytes) => {
    exchange(bytes, pick(ofKind('node')), pick(ofKind('node')));
    return bytes;
  },
  'two headers exchanged': (bytes) => {
    exchange(bytes, pick(ofKind('header')), pick(ofKind('header')));
    return bytes;
  },
  'a node and a page exchanged': (bytes) => {
    exchange(bytes, pick(ofKind('node')), pick(ofKind('page')));
    return bytes;
  },
  'a page of another layer or blob': (bytes) => {
    const page = recordOf(other, pick(ofKind('page', otherPlaces)));
    replace(bytes, pick(ofKind('page')), page);
    return bytes;
  },
  'a number of the index': (bytes) => {
    const at = 4 * below(indexBytes / 4);
    bytes.writeUInt32LE(random() < 0.7 ? below(300) : below(2 ** 32), at);
    return bytes;
  },
  'a number of a run': (bytes) => {
    const at = 32 + 72 * 4 + 4 * below(runs.length);
    bytes.writeUInt32LE(Math.max(0, bytes.readUInt32LE(at) + below(5) - 2), at);
    return bytes;
  },
  'two runs exchanged': (bytes) => {
    const [one, two] = [below(runs.length / 3), below(runs.length / 3)];
    const at = (run: number) => ({ kind: 'page', at: 32 + 72 * 4 + 12 * run, bytes: 12 }) as const;
    exchange(bytes, at(one), at(two));
    return bytes;
  },
  'two layers exchanged': (bytes) => {
    const at = (layer: number) => ({ kind: 'page', at: 32 + 72 * layer, bytes: 72 }) as const;
    exchange(bytes, at(below(4)), at(below(4)));
    return bytes;
  },
  'the roots of two layers exchanged': (bytes) => {
    const at = (layer: number) => ({ kind: 'page', at: 64 + 72 * layer, bytes: 32 }) as const;
    exchange(bytes, at(below(4)), at(below(4)));
    return bytes;
  },
  'the size of a layer': (bytes) => {
    const at = 32 + 72 * below(4) + 64;
    bytes.writeUInt32LE(Math.max(0, bytes.readUInt32LE(at) + pick([-PAGE, -1, 1, PAGE])), at);
    return bytes;
  },
  'a byte behind a short last leaf': (bytes) => {
    // The slots of the two short leaves.
    const place = ofKind('page')[pick([30, 46])]!;
    bytes[place.at + 100 + below(PAGE - 100)] = 1 + below(255);
    return bytes;
  },
  'a record left out': (bytes) => {
    const { at, bytes: length } = pick(places);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
  },
  'a record twice': (bytes) => {
    const { at, bytes: length } = pick(places);
    return Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
  },
  'a cut': (bytes) => bytes.subarray(0, below(bytes.length)),
  'the records of another blob': (bytes) =>
    Buffer.concat([bytes.subarray(0, indexBytes), other.subarray(otherPlaces[0]!.at)]),
  'bytes behind the end': (bytes) => Buffer.concat([bytes, distinctBytes(1 + below(9000), 9)]),
};

/** Reads a changed blob; returns the error, if there was one. @throws if a page is wrong. */
async function readChanged(changed: Uint8Array): Promise<unknown> {
  let index: HotIndex | undefined;
  try {
    for await (const part of readHotBlob(piecesOf(changed, 1 << 16), sources, 'hot')) {
      if ('runs' in part) index = part;
      else checkPages(index!, part.slot, part.bytes);
    }
    return undefined;
  } catch (error) {
    if (!isTyped(error)) throw error;
    return error;
  }
}

/** Compares pages with those of the layers that the index names for their slots. */
function checkPages({ layers, runs: found }: HotIndex, slot: number, pages: Buffer): void {
  let at = 0;
  for (let run = 0; run < found.length; run += 3) {
    const { digest } = layers[found[run]!]!;
    const { file } = sources.find((source) => source.digest === digest)!;
    for (let i = 0; i < found[run + 2]!; i++, at++) {
      if (at < slot || at >= slot + pages.length / PAGE) continue;
      const right = Buffer.alloc(PAGE);
      const offset = (found[run + 1]! + i) * PAGE;
      assert.ok(file.tryRead(right.subarray(0, file.sizeBytes - offset), offset));
      assert.ok(right.equals(pages.subarray((at - slot) * PAGE).subarray(0, PAGE)), `slot ${at}`);
    }
  }
}

test(`no changed content yields a wrong page (seed ${SEED})`, async () => {
  assert.equal(await readChanged(blob), undefined);
  const refused = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const name = Object.keys(CHANGES)[round % Object.keys(CHANGES).length]!;
    const changed = CHANGES[name]!(Buffer.from(content));
    if (changed.length >= indexBytes) seal(changed);
    const where = `round ${round}, ${name}`;
    const fast = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
    const error = await readChanged(zstdCompressSync(changed, fast)).catch((wrong: unknown) => {
      assert.fail(`${where}: ${messageOf(wrong)}`);
    });
    // Some changes restore what was there, or only a CRC that is made right again.
    if (error === undefined) assert.ok(changed.equals(content) || /run|index/.test(name), where);
    else refused.set(name, (refused.get(name) ?? 0) + 1);
  }
  for (const name of Object.keys(CHANGES)) assert.ok((refused.get(name) ?? 0) > 0, name);
});

test(`no changed frame yields a wrong page (seed ${SEED})`, async () => {
  let refused = 0;
  for (let round = 0; round < ROUNDS / 2; round++) {
    const changed = Buffer.from(blob);
    for (let i = 0; i <= below(3); i++) changed[below(blob.length)]! ^= 1 + below(255);
    const cut = random() < 0.2 ? changed.subarray(0, below(blob.length)) : changed;
    if ((await readChanged(cut)) !== undefined) refused++;
  }
  assert.ok(refused > ROUNDS / 4);
});
