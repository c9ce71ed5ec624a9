/**
 * Keeps the load orders of starts on this host, and publishes them beside the image for other nodes: the load order, and a hot
 * blob of its pages, as an artifact whose subject is the image's manifest.
 *
 * A node that uses a published order adds its own start to it, up to STARTS_PUBLISHED: then nodes only use it. A registry that
 * refuses is left alone for REFUSED_MS. A load order holds numbers of pages and times, nothing of host or container.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { KeptOrders } from '../load-order/kept-orders.js';
import { type LoadOrder, parseLoadOrder } from '../load-order/load-order.js';
import { NAME_ANNOTATION } from '../load-order/load-order-annotations.js';
import { mergeOrders } from '../load-order/merge-orders.js';
import { orderArtifact } from '../load-order/order-artifact.js';
import { publishArtifact } from '../registry/publish-artifact.js';
import type { RegistryClient } from '../registry/registry-client.js';
import type { ExpectedStart } from './expected-starts.js';
import type { StartAdvices } from './start-advice.js';
import type { WriteHot } from './worker-device-host.js';

/** A day. */
const REFUSED_MS = 86_400_000;
/** Many times the registries of a machine. */
const REFUSED_MAX = 1024;
/** The pages of so many starts differ little from those of more. */
const STARTS_PUBLISHED = 3;
const PUBLISH_MS_MAX = 300_000;

interface Dependencies {
  readonly client: RegistryClient;
  readonly advices: StartAdvices;
  readonly kept: KeptOrders;
  /** For a hot blob until it is uploaded. */
  readonly directory: string;
  /** Whether what starts have read is published. */
  readonly publishes: boolean;
  readonly log: Logger;
}

export class OrderPublisher {
  readonly #dependencies: Dependencies;
  /** Until when a repository is left alone, on the clock of performance.now(). Oldest first. */
  readonly #refusedMs = new Map<string, number>();
  /** One at a time: each reads and compresses tens of MiB. */
  #last: Promise<void> = Promise.resolve();
  #files = 0;

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
  }

  /** Keeps what a start has read, and publishes it if the daemon is to. Never fails; logs why nothing was published. */
  recorded(start: ExpectedStart, bytes: Uint8Array, writeHot: WriteHot): void {
    this.#last = this.#last.then(async () => {
      const { host, repository, manifest } = start.image;
      const image = `${host}/${repository}@${manifest?.digest ?? ''}`;
      try {
        const order = parseLoadOrder(Buffer.from(bytes), `load order of ${image}`);
        await this.#dependencies.kept.keep(order);
        if (this.#dependencies.publishes) await this.#publish(start, order, writeHot);
      } catch (err) {
        this.#dependencies.log.warn({ image, err }, 'load order of the start not kept');
      }
    });
  }

  /** Waits for what is under way. */
  async idle(): Promise<void> {
    await this.#last;
  }

  async #publish(start: ExpectedStart, own: LoadOrder, writeHot: WriteHot): Promise<void> {
    const { image } = start;
    const { host, repository, manifest, manifestType, orderName } = image;
    const place = `${host}/${repository}`;
    if (manifest === undefined || (this.#refusedMs.get(place) ?? 0) > performance.now()) return;
    const { advices, client, directory, log } = this.#dependencies;
    const signal = AbortSignal.timeout(PUBLISH_MS_MAX);
    advices.forget(image);
    try {
      const found = await (await advices.published(image, signal))?.order?.();
      if (found?.kind === 'recorded' && found.starts >= STARTS_PUBLISHED) return;
      const order = found === undefined ? own : mergeOrders(found, own);
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const path = join(directory, `${++this.#files}.hot`);
      try {
        const runs = order.runs.flatMap(({ layer, leaf, count }) => [layer, leaf, count]);
        const hot = { path, ...(await writeHot(Uint32Array.from(runs), path)) };
        const subject = {
          mediaType: manifestType,
          digest: manifest.digest,
          size: manifest.sizeBytes,
        };
        await publishArtifact(
          client,
          host,
          repository,
          subject,
          {
            ...orderArtifact(order, hot, orderName),
            replaces: ({ annotations }) => (annotations[NAME_ANNOTATION] ?? '') === orderName,
          },
          signal,
        );
        advices.forget(image);
        const { starts, runs: all } = order;
        const { digest, sizeBytes } = hot;
        log.info(
          { image: place, starts, runs: all.length, digest, sizeBytes },
          'load order published',
        );
      } finally {
        await rm(path, { force: true }).catch(() => {});
      }
    } catch (err) {
      this.#refuse(place);
      log.warn(
        { image: place, err },
        'load order not published; this repository is left alone for a day',
      );
    }
  }

  #refuse(place: string): void {
    this.#refusedMs.delete(place);
    this.#refusedMs.set(place, performance.now() + REFUSED_MS);
    for (const oldest of this.#refusedMs.keys()) {
      if (this.#refusedMs.size <= REFUSED_MAX) return;
      this.#refusedMs.delete(oldest);
    }
  }
}
