/**
 * The load-order document: which pages and chunks a start of an image reads, in the order of their first use
 * (docs/formats/load-order.md). It is advice, never proof: a wrong one costs time only.
 *
 * A document comes from a registry, so parseLoadOrder() treats it as hostile. A {@link LoadOrder} keeps these rules, which both
 * directions check:
 *
 *   1. It is within the limits below, so that its document has at most DOCUMENT_BYTES_MAX.
 *   2. No page and no chunk is there twice, and each is of a listed layer.
 *   3. A recorded order has starts, and each of its runs was read by at least one of them. Other orders have none.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { isDigest } from '../oci/digest.js';

/** An order within the limits below has 1.5 MiB at most. */
export const DOCUMENT_BYTES_MAX = 2 << 20;
/** 128 MiB of 4 KiB pages: no start of the measured images reads more than 35 MB. */
export const PAGES_MAX = 32_768;
/** 512 MiB: what one image may fetch by such advice. */
export const CHUNKS_MAX = 8192;
/** A stack has at most 255 layers of blocks, and an image one trace more. */
export const LAYERS_MAX = 256;
/** Counts of merged starts stay here, so that old starts do not outweigh new ones for ever. */
export const STARTS_MAX = 1000;

const VERSION = 1;
const KINDS = ['recorded', 'predicted', 'list'] as const;
/** Numbers per run and per range of chunks in the document. */
const RUN_NUMBERS = 5;
const RANGE_NUMBERS = 3;
/** Pages, chunks and times are below it: 16 TiB of a layer, and 49 days. */
const NUMBER_END = 2 ** 32;

export type LoadOrderKind = (typeof KINDS)[number];

export interface OrderLayer {
  /** Of the blob. */
  readonly digest: string;
  /** The root of its hash tree, `sha256:...`; undefined for a layer without one. */
  readonly root: string | undefined;
}

/** Pages that follow each other in a layer's file without tar and compression. */
export interface PageRun {
  readonly layer: number;
  /** The number of the first page of 4 KiB. */
  readonly leaf: number;
  /** Pages, at least 1. */
  readonly count: number;
  /** From the first read of the start to the first read of the run. */
  readonly ms: number;
  /** How many of the merged starts read it. */
  readonly starts: number;
}

export interface LoadOrder {
  readonly kind: LoadOrderKind;
  /** How many starts were merged; 0 unless recorded. */
  readonly starts: number;
  /** The device's read-ahead while it was recorded, in bytes; 0 for none or unknown. */
  readonly readAheadBytes: number;
  /** The image's layers of blocks, bottom first. */
  readonly layers: readonly OrderLayer[];
  /** In order of first use. */
  readonly runs: readonly PageRun[];
  /** Pairs of a layer and the number of a 64 KiB chunk of its blob, in order of first use. */
  readonly chunks: Uint32Array;
}

/** How many pages all runs have together. */
export function pageCount({ runs }: LoadOrder): number {
  return runs.reduce((sum, { count }) => sum + count, 0);
}

/**
 * Writes the document. The same order gives the same bytes.
 *
 * @throws {RangeError} for an order that breaks a rule: a bug of its maker.
 */
export function encodeLoadOrder(order: LoadOrder): Buffer {
  const { kind, starts, readAheadBytes, layers, runs, chunks } = order;
  const problem = problemOf(order);
  if (problem !== undefined) throw new RangeError(`a load order with ${problem}`);
  const document = {
    version: VERSION,
    kind,
    starts,
    readAheadBytes,
    layers: layers.map(({ digest, root }) => ({ digest, root })),
    runs: runs.flatMap(({ layer, leaf, count, ms, starts }) => [layer, leaf, count, ms, starts]),
    chunks: chunkRanges(chunks),
  };
  return Buffer.from(JSON.stringify(document));
}

/**
 * Reads a document.
 *
 * @param label - Follows "load order" in errors.
 * @throws {ObdError} `Corrupt` for anything that is no load order within the limits, `Unsupported` for a later version.
 */
export function parseLoadOrder(bytes: Uint8Array, label: string): LoadOrder {
  if (bytes.length > DOCUMENT_BYTES_MAX) {
    throw unfit(label, `${bytes.length} bytes, more than ${DOCUMENT_BYTES_MAX}`);
  }
  const document = recordOf(jsonOf(bytes));
  if (document === undefined) throw unfit(label, 'text that is no JSON object');
  const { version, kind, starts, readAheadBytes, layers } = document;
  if (typeof version === 'number' && version > VERSION) {
    const message = `Cannot use load order ${label}: it is of version ${version}, and this build reads ${VERSION}`;
    throw new ObdError(ErrorCodes.Unsupported, message);
  }
  if (version !== VERSION) throw unfit(label, 'no version');
  const known = KINDS.find((each) => each === kind);
  if (known === undefined) throw unfit(label, 'an unknown kind');
  if (!isCount(starts) || !isCount(readAheadBytes)) throw unfit(label, 'a wrong count');
  const runs = numbersOf(document['runs'], RUN_NUMBERS, PAGES_MAX);
  if (runs === undefined) throw unfit(label, 'runs that are no numbers, or too many');
  const ranges = numbersOf(document['chunks'], RANGE_NUMBERS, CHUNKS_MAX);
  const chunks = ranges === undefined ? undefined : chunksOf(ranges);
  if (chunks === undefined) throw unfit(label, 'chunks that are no numbers, or too many');
  const order: LoadOrder = {
    kind: known,
    starts,
    readAheadBytes,
    layers: layersOf(layers, label),
    runs: runsOf(runs),
    chunks,
  };
  const problem = problemOf(order);
  if (problem !== undefined) throw unfit(label, problem);
  return order;
}

/** The first rule that an order breaks. */
function problemOf({
  kind,
  starts,
  layers,
  runs,
  chunks,
  readAheadBytes,
}: LoadOrder): string | undefined {
  if (layers.length > LAYERS_MAX) return `${layers.length} layers, more than ${LAYERS_MAX}`;
  const isNamed = layers.every(
    ({ digest, root }) => isDigest(digest) && (root === undefined || isDigest(root)),
  );
  if (!isNamed) return 'a layer whose digest or root is no sha256 digest';
  if (starts > STARTS_MAX) return `${starts} starts, more than ${STARTS_MAX}`;
  if (starts > 0 !== (kind === 'recorded')) return `kind "${kind}" and ${starts} starts`;
  if (!isCount(readAheadBytes)) return `a read-ahead of ${readAheadBytes} bytes`;
  return problemOfRuns(runs, starts, layers.length) ?? problemOfChunks(chunks, layers.length);
}

function problemOfRuns(
  runs: readonly PageRun[],
  starts: number,
  layers: number,
): string | undefined {
  const seen = new Set<number>();
  let pages = 0;
  for (const run of runs) {
    const { layer, leaf, count, ms } = run;
    const isSound = [layer, leaf, ms, run.starts].every(isCount) && isCount(count) && count > 0;
    if (!isSound || leaf + count > NUMBER_END) return 'a run of impossible numbers';
    if (layer >= layers) return `a run of layer ${layer}, of ${layers}`;
    if (run.starts > starts || (run.starts === 0 && starts > 0)) {
      return `a run that ${run.starts} of ${starts} starts read`;
    }
    pages += count;
    if (pages > PAGES_MAX) return `more than ${PAGES_MAX} pages`;
    for (let page = leaf; page < leaf + count; page++) seen.add(placeIn(layer, page));
  }
  return seen.size < pages ? 'a page that is there twice' : undefined;
}

function problemOfChunks(chunks: Uint32Array, layers: number): string | undefined {
  if (chunks.length > 2 * CHUNKS_MAX) return `more than ${CHUNKS_MAX} chunks`;
  const seen = new Set<number>();
  for (let i = 0; i < chunks.length; i += 2) {
    if (chunks[i]! >= layers) return `a chunk of layer ${chunks[i]}, of ${layers}`;
    seen.add(placeIn(chunks[i]!, chunks[i + 1]!));
  }
  return 2 * seen.size < chunks.length ? 'a chunk that is there twice' : undefined;
}

/** One number for a page or chunk of a layer; both are below 2^32. */
export function placeIn(layer: number, number: number): number {
  return layer * NUMBER_END + number;
}

/** Joins chunks that follow each other into (layer, first, count). */
function chunkRanges(chunks: Uint32Array): number[] {
  const ranges: number[] = [];
  for (let i = 0; i < chunks.length; i += 2) {
    const at = ranges.length - RANGE_NUMBERS;
    const end = at < 0 ? -1 : ranges[at + 1]! + ranges[at + 2]!;
    if (at >= 0 && ranges[at] === chunks[i] && end === chunks[i + 1]) ranges[at + 2]!++;
    else ranges.push(chunks[i]!, chunks[i + 1]!, 1);
  }
  return ranges;
}

/** Undefined for more than CHUNKS_MAX. */
function chunksOf(ranges: readonly number[]): Uint32Array | undefined {
  const chunks: number[] = [];
  for (let i = 0; i < ranges.length; i += RANGE_NUMBERS) {
    const [layer, first, count] = [ranges[i]!, ranges[i + 1]!, ranges[i + 2]!];
    const isOver = first + count > NUMBER_END || chunks.length / 2 + count > CHUNKS_MAX;
    if (isOver) return undefined;
    for (let chunk = first; chunk < first + count; chunk++) chunks.push(layer, chunk);
  }
  return Uint32Array.from(chunks);
}

function runsOf(numbers: readonly number[]): PageRun[] {
  return Array.from({ length: numbers.length / RUN_NUMBERS }, (_, i) => {
    const [layer, leaf, count, ms, starts] = numbers.slice(
      RUN_NUMBERS * i,
      RUN_NUMBERS * (i + 1),
    ) as PageNumbers;
    return { layer, leaf, count, ms, starts };
  });
}

type PageNumbers = [layer: number, leaf: number, count: number, ms: number, starts: number];

function layersOf(value: unknown, label: string): OrderLayer[] {
  if (!Array.isArray(value) || value.length > LAYERS_MAX) {
    throw unfit(label, `layers that are no list, or more than ${LAYERS_MAX}`);
  }
  return value.map((each) => {
    const { digest, root } = recordOf(each) ?? {};
    if (typeof digest === 'string' && (root === undefined || typeof root === 'string')) {
      return { digest, root };
    }
    throw unfit(label, 'a layer without digest');
  });
}

/** The value as at most `countMax` groups of `width` numbers; undefined if it is none. */
function numbersOf(value: unknown, width: number, countMax: number): number[] | undefined {
  const isFit =
    Array.isArray(value) &&
    value.length % width === 0 &&
    value.length <= width * countMax &&
    value.every(isCount);
  return isFit ? value : undefined;
}

function isCount(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < NUMBER_END;
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  const isRecord = typeof value === 'object' && value !== null && !Array.isArray(value);
  return isRecord ? (value as Record<string, unknown>) : undefined;
}

/** Undefined for text that is no JSON. */
function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}

function unfit(label: string, problem: string): ObdError {
  const message = `Cannot use load order ${label}: it has ${problem}; record the start again`;
  return new ObdError(ErrorCodes.Corrupt, message, { path: label });
}
