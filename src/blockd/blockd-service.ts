/** The control interface of obd-blockd: proto/obd/blockd/v1/blockd.proto over a DeviceTable. */
import type { Logger } from 'pino';
import type { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlockdHandlers } from '../grpc/gen/obd/blockd/v1/Blockd.js';
import { type Service, service } from '../grpc/grpc-server.js';
import { pageCount } from '../load-order/load-order.js';
import type { BlobProbes } from './blob-probes.js';
import { blockdMethods } from './blockd-client.js';
import { checkBlob } from './cache-check.js';
import type { DeviceTable } from './device-table.js';
import { expectedImageOf } from './expected-image.js';
import type { ExpectedStarts } from './expected-starts.js';
import type { Prefetches } from './prefetches.js';
import type { Recordings } from './recordings.js';
import type { TransportChoice } from './transport-choice.js';

/** @param stateDir - Told to clients. */
export function blockdService(
  table: DeviceTable,
  prefetches: Prefetches,
  probes: BlobProbes,
  starts: ExpectedStarts,
  recordings: Recordings,
  cache: BlockCache,
  choice: TransportChoice,
  stateDir: string,
  log: Logger,
): Service {
  return service<BlockdHandlers>(blockdMethods, {
    Attach: async ({ id, configPath }) => {
      const startedMs = performance.now();
      try {
        const device = await table.attach(id, configPath);
        const { path, transport, layers } = device;
        log.info({ id, configPath, path, transport, layers, ms: since(startedMs) }, 'attached');
        return device;
      } catch (err) {
        log.warn({ id, configPath, ms: since(startedMs), err }, 'attach failed');
        throw err;
      }
    },
    Detach: async ({ id }) => {
      try {
        if (await table.detach(id)) log.info({ id }, 'detached');
        return {};
      } catch (err) {
        log.warn({ id, err }, 'detach failed');
        throw err;
      }
    },
    EndReads: async ({ id }) => {
      log.warn({ id }, 'ending waiting reads with EIO, their device is being removed');
      await table.endReads(id);
      return {};
    },
    List: async () => ({
      devices: table.list(),
      transports: await choice.states(),
      stateDir,
      prefetches: prefetches.list(),
    }),
    Prefetch: async ({ name, blobs }) => ({ name, ...(await prefetches.start(name, blobs)) }),
    Probe: async ({ blob, parts }, { signal }) => {
      const none = { host: '', repository: '', digest: '', sizeBytes: undefined };
      await probes.probe(blob ?? none, parts, signal);
      return {};
    },
    Expect: async (request) => {
      starts.expect(expectedImageOf(request));
      return {};
    },
    Record: async ({ image, untilQuiet }) => {
      if (image === null) {
        throw new ObdError(ErrorCodes.InvalidArgument, 'Cannot record a start: no image is named');
      }
      const expected = expectedImageOf(image);
      const key = await recordings.begin(expected, untilQuiet);
      const { host, repository } = expected;
      log.info({ image: `${host}/${repository}` }, 'recording the next start');
      return { key };
    },
    EndRecording: async ({ key, publish }, { signal }) => {
      const recorded = await recordings.end(key, publish, signal);
      const { document, pages, artifact, order, hotBytes } = recorded;
      const isPublished = artifact !== '';
      return {
        order: Buffer.from(document),
        pages,
        artifact,
        publishedStarts: isPublished ? order.starts : 0,
        publishedPages: isPublished ? pageCount(order) : 0,
        hotBytes,
      };
    },
    ListCache: async () => {
      const { blobs, ...room } = await cache.list();
      return {
        ...room,
        blobs: blobs.map(({ origin, ...blob }) => ({ ...blob, registry: origin })),
      };
    },
    VerifyCache: async ({ registry, digest }) => {
      const checked = await checkBlob(cache, registry, digest);
      if (checked.droppedBytes > 0) {
        log.warn({ registry, digest, ...checked }, 'cached blob failed its digest, dropped');
      }
      return checked;
    },
    PruneCache: async () => {
      const pruned = await cache.prune();
      prefetches.forgetComplete();
      log.info(pruned, 'cache pruned');
      return pruned;
    },
  });
}

function since(startedMs: number): number {
  return Math.round(performance.now() - startedMs);
}
