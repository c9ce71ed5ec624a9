/** What a start did with the load order that is known of it. What does not apply is undefined. */
import { CHUNK_BYTES } from '../../src/io/random-access-file.js';
import { type LoadOrder, placeIn } from '../../src/load-order/load-order.js';
import type { RequestRecord } from './far-server.js';
import type { PublishedOrder } from './published-order.js';

export interface AdviceUse {
  /** Of the hot blob, as published. */
  readonly hotBytes: number | undefined;
  /** Answers with parts of the hot blob. */
  readonly hotGets: number | undefined;
  /** Seconds from the start of the pull until the registry was first asked for the hot blob. */
  readonly hotAsked: number | undefined;
  /** One GET of the chunks that a load order without hot blob names, in seconds. */
  readonly orderSeconds: number | undefined;
  /** Of a prediction's chunks that were fetched, the share that the start and its read-ahead did not read. */
  readonly unreadShare: number | undefined;
}

/** Of the hot blob. @param begun - Of the pull, in milliseconds as the requests'. */
export function hotUse(
  { hot }: PublishedOrder,
  requests: readonly RequestRecord[],
  begun: number,
): Pick<AdviceUse, 'hotBytes' | 'hotGets' | 'hotAsked'> {
  if (hot === undefined) return { hotBytes: undefined, hotGets: undefined, hotAsked: undefined };
  const asked = requests.filter(
    ({ method, path }) => method === 'GET' && path.includes(hot.digest),
  );
  const [first] = asked;
  return {
    hotBytes: hot.sizeBytes,
    hotGets: asked.filter(isPart).length,
    hotAsked: first && (first.at - begun) / 1000,
  };
}

/** @param read - What the start has read, as its node recorded it. */
export function unreadShare(
  predicted: LoadOrder,
  read: LoadOrder,
  requests: readonly RequestRecord[],
): number | undefined {
  const layerOf = new Map(predicted.layers.map(({ digest }, layer) => [digest, layer]));
  const places = ({ chunks, layers }: LoadOrder): number[] =>
    Array.from({ length: chunks.length / 2 }, (_, i) =>
      placeIn(layerOf.get(layers[chunks[2 * i]!]!.digest) ?? layers.length, chunks[2 * i + 1]!),
    );
  const fetched = new Set(
    requests.filter(isPart).flatMap((request) => {
      const layer = layerOf.get(request.path.slice(1).replace(/\?.*/, ''));
      return layer === undefined ? [] : chunksOf(request).map((chunk) => placeIn(layer, chunk));
    }),
  );
  const touched = new Set(places(read));
  const arrived = places(predicted).filter((place) => fetched.has(place));
  if (arrived.length === 0) return undefined;
  return arrived.filter((place) => !touched.has(place)).length / arrived.length;
}

function isPart({ server, status }: RequestRecord): boolean {
  return server === 'storage' && (status === 200 || status === 206);
}

function chunksOf({ range = '', bytes }: RequestRecord): number[] {
  const first = Number(/^bytes=([0-9]+)-/.exec(range)?.[1] ?? 0);
  const from = Math.floor(first / CHUNK_BYTES);
  const end = Math.ceil((first + bytes) / CHUNK_BYTES);
  return Array.from({ length: end - from }, (_, i) => from + i);
}
