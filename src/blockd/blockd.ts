/**
 * The daemon as an object. It opens these in order when it starts, and closes them in reverse when it stops:
 *
 *   cache      locks the state directory, so the steps below run in one process only
 *   NBD        disks by name; the devices of the fuse transport read through it
 *   threads    started as devices come; images are opened and read there
 *   devices    serves the devices of an earlier run again, and clears half-made ones
 *   control    last, so that every client that can connect can be served
 *
 * Devices that are in use when the daemon stops, or is killed, stay in the kernel: reads of them wait for the next run,
 * for up to `read_deadline` and a minute (absenceSeconds() of src/blockdev/transport.ts).
 */
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Logger } from 'pino';
import { NbdServer } from '../blockdev/nbd/nbd-server.js';
import { type DeviceFailure, READ_ONLY } from '../blockdev/transport.js';
import { makeTransports } from '../blockdev/transports.js';
import { BlockCache, type BlockCacheOptions } from '../cache/block-cache.js';
import { ErrorCodes, isDiskFull, messageOf, ObdError } from '../errors.js';
import { GrpcServer } from '../grpc/grpc-server.js';
import { KeptOrders } from '../load-order/kept-orders.js';
import { DockerCredentials } from '../registry/docker-credentials.js';
import { RegistryClient } from '../registry/registry-client.js';
import { type ReportWrongAnswer, WRONG_ANSWER_EVENT } from '../registry/registry-exchange.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { BackgroundFill } from './background-fill.js';
import { BlobProbes } from './blob-probes.js';
import type { BlockdConfig } from './blockd-config.js';
import { blockdService } from './blockd-service.js';
import { DemandWatch } from './demand-watch.js';
import { DEAD_REMEDY } from './device-entry.js';
import { DeviceRecords } from './device-records.js';
import { DeviceTable } from './device-table.js';
import { ExpectedStarts } from './expected-starts.js';
import { HotImages } from './hot-images.js';
import { LogThrottle } from './log-throttle.js';
import { OrderPublisher } from './order-publisher.js';
import { Prefetches } from './prefetches.js';
import { Recordings } from './recordings.js';
import { recoverDevices } from './recovery.js';
import type { RequestNote } from './request-notes.js';
import { StartAdvices } from './start-advice.js';
import { TransportChoice } from './transport-choice.js';
import { WorkerDeviceHost } from './worker-device-host.js';
import { DEVICE_PROGRAM } from './worker-pool.js';

/** For calls under way when the daemon stops. */
const CALLS_GRACE_MS = 5_000;

export class Blockd {
  readonly #log: Logger;
  readonly #onBroken: (why: Error) => void;
  #reloadRegistries: (config: BlockdConfig) => void = () => {};
  #observeRequests: () => void = () => {};
  /** Actions that stop the daemon, run last first. */
  readonly #closers: (() => unknown)[] = [];

  private constructor(log: Logger, onBroken: (why: Error) => void) {
    this.#log = log;
    this.#onBroken = onBroken;
  }

  /**
   * Serves when it resolves.
   *
   * @param onBroken - Called when a thread has ended by itself, or is stuck. Its devices wait for another process to resume
   *   them, so this process has to end, without waiting for any of its threads.
   * @throws {ObdError} `Busy` if another daemon has the state directory or a socket, `InvalidArgument` for an invalid
   *   registry name, `Host`, `Io`. Nothing is left running.
   */
  static async start(
    config: BlockdConfig,
    log: Logger,
    onBroken: (why: Error) => void,
  ): Promise<Blockd> {
    const daemon = new Blockd(log, onBroken);
    try {
      await daemon.#start(config);
      return daemon;
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  /**
   * Takes over registries, logins and log level, for all reads from now on.
   *
   * @returns The keys that are in effect now.
   * @throws {ObdError} `InvalidArgument` for an invalid host; nothing has changed then.
   */
  reload(config: BlockdConfig): readonly (keyof BlockdConfig)[] {
    this.#reloadRegistries(config);
    this.#log.level = config.log_level;
    this.#observeRequests();
    return ['registry', 'docker_config', 'log_level'];
  }

  async #start(config: BlockdConfig): Promise<void> {
    const log = this.#log;
    const { plain_http: plainHttp, hosts: endpoints, hosts_dir: hostsDirectory } = config.registry;
    const hosts = new RegistryHosts(plainHttp, endpoints, hostsDirectory);
    const credentials = new DockerCredentials(config.docker_config);
    const reportWrong: ReportWrongAnswer = (mirror, err) =>
      log.warn({ mirror, err }, WRONG_ANSWER_EVENT);
    const client = new RegistryClient({ hosts, credentials, reportWrong });
    this.#reloadRegistries = ({ registry, docker_config }) => {
      hosts.replace(registry.plain_http, registry.hosts, registry.hosts_dir);
      credentials.replace(docker_config);
      client.forgetLogins();
    };
    const devicesDirectory = join(config.state_dir, 'devices');
    const cacheDirectory = join(config.state_dir, 'cache');
    // A full disk has no room for it; records lie next to the control socket then.
    await makeDirectory(devicesDirectory);
    const throttle = new LogThrottle();
    const cache = await this.#openCache(config, cacheDirectory, {
      capacityBytes: config.cache_size,
      report: (err) => logCacheFault(log, throttle, err),
      reserveBytes: config.cache_reserve,
      reportRoom: () => log.info('cache stores again'),
      outageLog: {
        unavailable: ({ origin: registry, ...outage }) =>
          log.warn({ registry, ...outage }, 'registry unavailable, reads waiting'),
        recovered: ({ origin: registry, afterMs }) =>
          log.info({ registry, afterMs }, 'registry recovered'),
        left: ({ origin: registry, afterMs }) =>
          log.info(
            { registry, afterMs },
            'registry still unavailable, no reads wait for it any more',
          ),
      },
    });
    this.#closers.push(() => cache.close());

    const nbdSocketPath = config.nbd_socket;
    const nbd = await NbdServer.listen(nbdSocketPath);
    this.#closers.push(() => nbd.close());

    const ordersDirectory = join(config.state_dir, 'load-orders');
    const publishingDirectory = join(config.state_dir, 'publishing');
    // A killed process leaves hot blobs that it has not uploaded, and versions before load orders kept traces.
    for (const left of [publishingDirectory, join(config.state_dir, 'traces')]) {
      await rm(left, { recursive: true, force: true });
    }
    const kept = new KeptOrders(ordersDirectory);
    const advices = new StartAdvices(client, kept);
    const hotImages = new HotImages(cache, client);
    const { use: isUsed, publish: publishes } = config.load_order;
    const starts = new ExpectedStarts({ cache, client, hotImages, advices, isUsed, log });
    this.#closers.push(() => starts.close());
    const publisher = new OrderPublisher({
      client,
      advices,
      kept,
      directory: publishingDirectory,
      publishes,
      log,
    });
    const recordings = new Recordings(starts, publisher);

    // Keeps the orders that devices have recorded until now; the client is closed by then.
    this.#closers.push(() => publisher.idle());

    const demand = new DemandWatch();
    const fill = new BackgroundFill(cache, demand, config.fill.rate, log);
    const { enabled: isEnabled, delay: delayMs, idle: idleMs } = config.fill;
    this.#closers.push(() => fill.close());
    const host = new WorkerDeviceHost({
      program: DEVICE_PROGRAM,
      demand,
      fill,
      fillImages: { isEnabled, delayMs, idleMs },
      cache,
      client,
      nbd,
      nbdSocketPath,
      directory: devicesDirectory,
      readDeadlineMs: config.read_deadline,
      indexBytes: config.index_memory,
      onReadError: (failure) => logReadFailure(log, throttle, failure),
      onRequest: (id, note) => logRequest(log, id, note),
      onDeviceDeath: (id, path) => log.error({ id, path, remedy: DEAD_REMEDY }, 'device is dead'),
      onReplay: (id, { ended, fetchedBytes }, ms) =>
        log.info({ id, ended, fetchedBytes, ms }, 'trace replayed'),
      onReplayFailure: (id, err) =>
        log.warn({ id, err }, 'trace not replayed, reads fetch what they need'),
      onPagesRead: (id, { what, pages, ms, error }) => {
        const isKnown = what === 'known';
        if (error === undefined) {
          const done = isKnown ? 'known pages read ahead' : 'files of the image read ahead';
          log.info({ id, pages, ms }, done);
        } else {
          const failed = isKnown
            ? 'known pages not read ahead'
            : 'files of the image not read ahead';
          log.info({ id, err: error }, failed);
        }
      },
      starts,
      recordings,
      onRecorded: (start, order, writeHot) => publisher.recorded(start, order, writeHot),
      onDeath: (err) => this.#onBroken(err),
      onUnchecked: (id, uncheckedLayers) =>
        log.warn(
          { id, uncheckedLayers },
          'layers have no checksums; convert the image with obdconv',
        ),
      onUnloadable: (err) =>
        log.warn({ err }, 'program replaced, devices share threads; restart obd-blockd'),
    });
    this.#closers.push(() => host.close());
    this.#observeRequests = () => host.observe(log.isLevelEnabled('debug'));
    this.#observeRequests();
    // These only look at orphans; each worker thread has its own for the devices it serves.
    const transports = makeTransports(nbdSocketPath, devicesDirectory);
    const choice = new TransportChoice(config.transport, transports);
    const records = new DeviceRecords(
      devicesDirectory,
      join(dirname(config.socket), 'device-records'),
      () => cache.makeRoom(),
    );
    const table = new DeviceTable({
      host,
      records,
      transports,
      candidates: () => choice.candidates(READ_ONLY),
      nbdSocketPath,
      report: ({ msg, ...about }) => log.warn(about, msg),
    });
    this.#closers.push(() => this.#closeTable(table));
    await recoverDevices(table, records, transports, log);
    log.info({ setting: config.transport, transports: await choice.states() }, 'transports');
    await host.loaded();
    const control = await GrpcServer.listen(
      config.socket,
      [
        blockdService(
          table,
          new Prefetches(fill, client, cache.capacityBytes),
          new BlobProbes(cache, client),
          starts,
          recordings,
          cache,
          choice,
          config.state_dir,
          log,
        ),
      ],
      log,
    );
    this.#closers.push(() => control.close(CALLS_GRACE_MS));
    // First, so that no call waits for a registry that does not answer. Reads of devices wait on, for the next daemon.
    this.#closers.push(() => client.close());
  }

  /** Where the disk has no room for a cache, one that stores nothing has its lock next to the control socket. */
  async #openCache(
    config: BlockdConfig,
    directory: string,
    options: BlockCacheOptions,
  ): Promise<BlockCache> {
    try {
      return await BlockCache.open(directory, options);
    } catch (error) {
      if (!(error instanceof ObdError && isDiskFull(error.cause))) throw error;
    }
    const msg = 'disk full, nothing is cached until it has room and the daemon is restarted';
    this.#log.warn({ stateDir: config.state_dir }, msg);
    const elsewhere = join(dirname(config.socket), 'no-cache');
    return await BlockCache.open(elsewhere, { ...options, capacityBytes: 0 });
  }

  /** Closes everything, also when a step fails; failures are logged. Idempotent. */
  async stop(): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      try {
        await close();
      } catch (err) {
        this.#log.error({ err }, 'shutdown step failed, continuing with the next');
      }
    }
  }

  async #closeTable(table: DeviceTable): Promise<void> {
    for (const [id, why] of await table.close()) {
      this.#log.info({ id, reason: messageOf(why) }, 'device kept for the next run');
    }
  }
}

/** Only root may enter: cached images may be private. Does nothing where the disk has no room. */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (cause) {
    if (isDiskFull(cause)) return;
    const message = `Cannot make the directory "${path}": ${messageOf(cause)}; check state_dir`;
    throw new ObdError(ErrorCodes.Io, message, { path }, cause);
  }
}

/** The story of a read: it is answered from this machine, or it waits for its bytes and is answered then. */
function logRequest(log: Logger, id: string, { answer, suppressed, ...range }: RequestNote): void {
  const about = { id, ...range, ...answer, ...(suppressed > 0 && { suppressed }) };
  if (answer === undefined) log.debug(about, 'request waits for bytes');
  else log.debug(about, 'request answered');
}

/** The message names blob and registry. A reader that retries at once must not fill a disk with log lines. */
function logReadFailure(
  log: Logger,
  throttle: LogThrottle,
  { id, offset, length, error: err }: DeviceFailure,
): void {
  throttle.log(`EIO ${id}`, (suppressed) =>
    log.error({ id, offset, length, suppressed, err }, 'read failed, answered EIO'),
  );
}

function logCacheFault(log: Logger, throttle: LogThrottle, err: ObdError): void {
  throttle.log(`${err.code} ${err.details.digest}`, (suppressed) =>
    log.warn({ suppressed, err }, 'cache: skipped damaged entry'),
  );
}
