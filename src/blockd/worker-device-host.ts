/**
 * Serves devices on a pool of threads. This thread keeps what they share: the cache and its fetches, the names at the NBD
 * socket, and the stats. attach() opens the image, serves it over NBD under its device's id, and attaches it to the
 * kernel. Detaching undoes these steps in reverse order, and a failed attach leaves nothing.
 */
import type { NbdExport, NbdServer } from '../blockdev/nbd/nbd-server.js';
import type { DeviceFailure, TransportName } from '../blockdev/transport.js';
import { BlobFile } from '../cache/blob-file.js';
import { type BlobHandle, statsOf } from '../cache/blob-handle.js';
import type { BlockCache } from '../cache/block-cache.js';
import { ImageReads } from '../cache/image-reads.js';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { HotProgress } from '../hot-blob/hot-progress.js';
import type { FetchOrder } from '../image/fetch-order.js';
import { type IndexAccount, IndexBudget } from '../io/index-budget.js';
import type { RegistryClient } from '../registry/registry-client.js';
import { AdviceTrial } from './advice-trial.js';
import type { BackgroundFill } from './background-fill.js';
import { type BlobRequest, blobHandlers, type OpenedBlob } from './blob-calls.js';
import type { DemandWatch } from './demand-watch.js';
import type { DeviceHost, DeviceState, HostedDevice } from './device-host.js';
import type { ExpectedStart, ExpectedStarts } from './expected-starts.js';
import type { Recording, Recordings } from './recordings.js';
import { registrySource } from './registry-source.js';
import { Replay, type ReplayResult } from './replay.js';
import type { RequestNote } from './request-notes.js';
import { deserializedError, type SerializedError } from './serialized-error.js';
import type { Handlers } from './thread-calls.js';
import type {
  MainCalls,
  OpenedDisk,
  PagesRead,
  StartTerms,
  WorkerSettings,
  WriteHot,
} from './worker-messages.js';
import { type DeviceProgram, type PooledWorker, WorkerPool } from './worker-pool.js';

export interface WorkerHostOptions extends Omit<WorkerSettings, 'decodedBytes'> {
  /** Memory for the indexes of all images together. */
  readonly indexBytes: number;
  /** Started in each thread that serves devices. */
  readonly program: DeviceProgram;
  readonly cache: BlockCache;
  readonly client: Pick<RegistryClient, 'blobRanges'>;
  readonly starts: ExpectedStarts;
  readonly recordings: Pick<Recordings, 'take' | 'closed'>;
  readonly nbd: NbdServer;
  readonly demand: DemandWatch;
  readonly fill: BackgroundFill;
  /** Whether and when the rest of an image is fetched, unless its config says otherwise. */
  readonly fillImages: FillImages;
  /** Called once for every read that is answered with an error; the place to log it. */
  readonly onReadError: (failure: DeviceFailure) => void;
  /** Called for requests of devices while they are observed: see observe(). */
  readonly onRequest: (id: string, note: RequestNote) => void;
  /** Called once for a device that answers EIO from now on. */
  readonly onDeviceDeath: (id: string, path: string) => void;
  /**
   * A thread has ended by itself, or is stuck. Its devices wait for a process that resumes them, so this process should
   * end.
   */
  readonly onDeath: (error: Error) => void;
  /** How the replay of a trace ended, and after how long. */
  readonly onReplay: (id: string, result: ReplayResult, ms: number) => void;
  /** The trace of an image is unusable, or its replay failed. */
  readonly onReplayFailure: (id: string, error: unknown) => void;
  /** Pages of a start were read into the kernel's cache, or could not be. */
  readonly onPagesRead: (id: string, result: ReadAhead) => void;
  /** Called with the load order of a start. `writeHot` writes a hot blob of it while the device is there. */
  readonly onRecorded: (start: ExpectedStart, order: Uint8Array, writeHot: WriteHot) => void;
  /** An attached image has so many remote layers without checksums. */
  readonly onUnchecked: (id: string, layers: number) => void;
  /** No further thread can be started, since the program was replaced; devices share the existing threads. */
  readonly onUnloadable: (error: Error) => void;
}

interface ReadAhead {
  readonly what: PagesRead;
  readonly pages: number;
  readonly ms: number;
  readonly error: Error | undefined;
}

interface FillImages {
  readonly isEnabled: boolean;
  readonly delayMs: number;
  readonly idleMs: number;
}

export class WorkerDeviceHost implements DeviceHost {
  readonly #options: WorkerHostOptions;
  readonly #indexBudget: IndexBudget;
  readonly #pool: WorkerPool;
  readonly #devices = new Map<string, WorkerDevice>();
  #isObserved = false;

  constructor(options: WorkerHostOptions) {
    this.#options = options;
    const { program, nbdSocketPath, directory, readDeadlineMs } = options;
    const { onDeath, onUnloadable } = options;
    this.#indexBudget = new IndexBudget(options.indexBytes);
    const settings = { nbdSocketPath, directory, readDeadlineMs };
    const handlers = () => this.#handlers();
    this.#pool = new WorkerPool({ program, settings, handlers, onDeath, onUnloadable });
  }

  /** Resolves when the program is loaded, so that replacing or removing its files affects no device. */
  async loaded(): Promise<void> {
    await this.#pool.loaded();
  }

  async attach(id: string, configPath: string, transport: TransportName): Promise<HostedDevice> {
    return await this.#serve(id, configPath, transport, 'attach');
  }

  async resume(id: string, configPath: string, transport: TransportName): Promise<HostedDevice> {
    return await this.#serve(id, configPath, transport, 'resume');
  }

  /** Whether `onRequest` is called from now on, for all devices. Otherwise requests cost nothing here. */
  observe(isObserved: boolean): void {
    this.#isObserved = isObserved;
    for (const device of this.#devices.values()) device.observe(isObserved);
  }

  /** Ends the threads. Devices they still serve are left as a killed process would leave them. Idempotent. */
  async close(): Promise<void> {
    await this.#pool.close();
  }

  async #serve(
    id: string,
    configPath: string,
    transport: TransportName,
    how: 'attach' | 'resume',
  ): Promise<HostedDevice> {
    const worker = await this.#pool.acquire();
    if (this.#devices.has(id)) {
      this.#pool.release(worker);
      throw new ObdError(ErrorCodes.AlreadyExists, `Cannot ${how} "${id}": it is served already`);
    }
    const memory = this.#indexBudget.account(how === 'resume');
    const device = new WorkerDevice(
      id,
      worker,
      memory,
      () => {
        this.#devices.delete(id);
        this.#options.fill.remove(id);
        if (device.start !== undefined) {
          device.start.unguide(device.blobs);
          this.#options.starts.closed(device.start, device);
        }
        if (device.recording !== undefined) this.#options.recordings.closed(device.recording);
        this.#pool.release(worker);
      },
      this.#options.fill,
    );
    this.#devices.set(id, device);
    try {
      await device.open(configPath, how === 'attach', this.#options.nbd);
      device.observe(this.#isObserved);
      if (how === 'attach') await this.#foresee(id, device);
      await device.connect(how, transport);
      if (how === 'attach' && device.uncheckedLayers > 0) {
        this.#options.onUnchecked(id, device.uncheckedLayers);
      }
      this.#fillLater(id, device);
      return device;
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  /** Begins to replay the image's own trace; else the start goes by what was known of it before. */
  async #foresee(id: string, device: WorkerDevice): Promise<void> {
    const { onReplayFailure } = this.#options;
    const { order, traceProblem, start } = device;
    if (traceProblem !== undefined) onReplayFailure(id, deserializedError(traceProblem));
    if (order !== undefined) await this.#replay(id, device, order);
    else {
      const { blobs, reads, hot } = device;
      const onSetAside = () => device.forgetKnown();
      start?.guide({ blobs, reads, hasHotPages: hot !== undefined, onSetAside });
    }
  }

  async #replay(id: string, device: WorkerDevice, order: FetchOrder): Promise<void> {
    const { cache, onReplay, onReplayFailure } = this.#options;
    const sources = new Map(device.blobs.map(({ source }) => [source.key.digest, source]));
    // The replay closes its own, also while the device reads.
    const blobs = await Promise.all(
      order.digests.map((digest) => cache.openBlob(sources.get(digest)!)),
    );
    const startedMs = performance.now();
    const replay = new Replay(order.chunks, blobs, cache);
    device.replay = replay;
    let hasFailed = false;
    const failed = (error: unknown) => {
      device.reads.isKnown = false;
      if (!hasFailed) onReplayFailure(id, error);
      hasFailed = true;
    };
    const trial = new AdviceTrial(replay.advice, (why) => {
      replay.stop();
      failed(why);
    });
    replay.guide(device.blobs, trial);
    device.reads.isKnown = replay.isKnown;
    replay.done.then(
      (result) => onReplay(id, result, Math.round(performance.now() - startedMs)),
      failed,
    );
  }

  #fillLater(id: string, { blobs, fillsImage }: WorkerDevice): void {
    const { isEnabled, ...times } = this.#options.fillImages;
    if (!(fillsImage ?? isEnabled)) return;
    const sources = blobs.map(({ source }) => source);
    this.#options.fill.add({ id, sources, ...times, isLasting: true });
  }

  async #openBlob({ id, address }: BlobRequest): Promise<BlobHandle> {
    const { cache, client } = this.#options;
    const { host, repository, digest, sizeBytes } = address;
    const ranges = await client.blobRanges(host, repository, digest, sizeBytes);
    const device = this.#devices.get(id);
    await device?.memory.charge(BlobFile.memoryBytes(ranges.sizeBytes), ranges.label);
    const handle = await cache.openBlob(registrySource(ranges), device?.reads);
    device?.blobs.push(handle);
    return handle;
  }

  async #startOf(
    { id, isStart, image }: Parameters<MainCalls['starting']>[0],
    add: (link: BlobHandle) => OpenedBlob,
  ): Promise<StartTerms> {
    const device = this.#devices.get(id);
    if (device === undefined) return { hot: undefined, recording: undefined };
    const { recordings, starts } = this.#options;
    const start = starts.opened(image, isStart, device);
    device.start = start;
    if (isStart) device.recording = recordings.take(image.layers, device);
    const recording = device.recording && { untilQuiet: device.recording.untilQuiet };
    const hot = await start.hot();
    if (hot === undefined) return { hot, recording };
    const { index, indexBytes, progress } = hot;
    device.hot = progress;
    hot.done.catch(() => device.forgetKnown());
    const file = add(await hot.open());
    const { isExact } = start;
    return { hot: { file, index, indexBytes, progress: progress.memory, isExact }, recording };
  }

  #recorded(id: string, order: Uint8Array): void {
    const device = this.#devices.get(id);
    if (device?.start === undefined) return;
    if (device.recording === undefined)
      this.#options.onRecorded(device.start, order, device.writeHot);
    else device.recording.recorded(order);
  }

  /** The calls that one worker may make. */
  #handlers(): Handlers<MainCalls> {
    const { onReadError, onRequest, onDeviceDeath, onPagesRead } = this.#options;
    const blobs = blobHandlers((request) => this.#openBlob(request), this.#options.demand);
    return {
      ...blobs.handlers,
      starting: async (request) => await this.#startOf(request, blobs.add),
      recorded: ({ id, order }) => this.#recorded(id, order),
      walked: ({ id }) => {
        const device = this.#devices.get(id);
        if (device !== undefined) device.reads.isWalked = true;
      },
      pagesRead: ({ id, what, pages, ms, error }) => {
        onPagesRead(id, { what, pages, ms, error: error && deserializedError(error) });
      },
      died: ({ id }) => {
        const device = this.#devices.get(id);
        if (device === undefined) return;
        device.isDead = true;
        onDeviceDeath(id, device.path);
      },
      request: ({ id, note }) => onRequest(id, note),
      readError: ({ id, offset, length, error }) => {
        const device = this.#devices.get(id);
        if (device !== undefined) device.readErrors++;
        onReadError({ id, offset, length, error: deserializedError(error) });
      },
    };
  }
}

/** The waits of a device's reads, over all of its blobs. */
function waitsOf(blobs: readonly BlobHandle[]) {
  let waitingReads = 0;
  let waitingMs = 0;
  let waitingReason = '';
  for (const blob of blobs) {
    const { reads, ms, error } = blob.waits();
    waitingReads += reads;
    waitingMs = Math.max(waitingMs, Math.round(ms));
    if (waitingReason === '' && error !== undefined) waitingReason = messageOf(error);
  }
  return { waitingReads, waitingMs, waitingReason };
}

class WorkerDevice implements HostedDevice {
  path = '';
  isGone = false;
  isDead = false;
  readErrors = 0;
  /** The remote blobs of its image. */
  readonly blobs: BlobHandle[] = [];
  replay: Replay | undefined;
  start: ExpectedStart | undefined;
  /** The recording of its start that a client wants. */
  recording: Recording | undefined;
  /** How far the pages of its start have come, and how many of them it has read. */
  hot: HotProgress | undefined;
  readonly reads = new ImageReads();
  /** Charged by the main thread for what it keeps of the blobs, and by the worker for the indexes. */
  readonly memory: IndexAccount;
  readonly #id: string;
  readonly #worker: PooledWorker;
  readonly #onClosed: () => void;
  readonly #fill: BackgroundFill;
  #disk: OpenedDisk | undefined;
  #export: NbdExport | undefined;
  #closed: Promise<void> | undefined;

  constructor(
    id: string,
    worker: PooledWorker,
    memory: IndexAccount,
    onClosed: () => void,
    fill: BackgroundFill,
  ) {
    this.#fill = fill;
    this.#id = id;
    this.memory = memory;
    this.#worker = worker;
    this.#onClosed = onClosed;
    this.reads.onMost = () => {
      if (this.#closed === undefined) this.#worker.calls.notify('readStored', { id });
    };
  }

  async open(configPath: string, isStart: boolean, nbd: NbdServer): Promise<void> {
    const id = this.#id;
    const { calls } = this.#worker;
    const disk = await calls.call('open', { id, configPath, isStart, memory: this.memory.shared });
    this.memory.opened();
    this.#disk = disk;
    this.#export = nbd.addExport(id, {
      ...disk,
      serve: ({ fd, structured, allocation, rest, ended }) => {
        const taken = { id, fd, structured, allocation, rest: new Uint8Array(rest) };
        calls.call('connection', taken).then(ended, ended);
      },
      end: () => calls.call('endConnections', { id }),
    });
  }

  async connect(how: 'attach' | 'resume', transport: TransportName): Promise<void> {
    this.path = await this.#worker.calls.call(how, { id: this.#id, transport });
  }

  readonly writeHot: WriteHot = async (runs, path) => {
    // Another device may have its id by now.
    if (this.#closed !== undefined) {
      throw new ObdError(ErrorCodes.NotFound, `Cannot read the pages of "${this.#id}": it is gone`);
    }
    return await this.#worker.calls.call('writeHot', { id: this.#id, runs, path });
  };

  /** Ends what records its start. */
  async endRecording(): Promise<void> {
    await this.#worker.calls.call('endRecording', { id: this.#id });
  }

  /** The pages of its start do not come, or are others: its misses bring neighbours, and the kernel reads ahead as on any device. */
  forgetKnown(): void {
    this.reads.isKnown = false;
    for (const blob of this.blobs) blob.onMiss(() => false);
    if (this.#closed === undefined) this.#worker.calls.notify('forgetKnown', { id: this.#id });
  }

  observe(isObserved: boolean): void {
    this.#worker.calls.notify('observe', { id: this.#id, isObserved });
  }

  get uncheckedLayers(): number {
    return this.#disk?.uncheckedLayers ?? 0;
  }

  get order(): FetchOrder | undefined {
    return this.#disk?.order;
  }

  get traceProblem(): SerializedError | undefined {
    return this.#disk?.traceProblem;
  }

  /** Whether the image's config wants the rest of the image fetched; undefined if it does not say. */
  get fillsImage(): boolean | undefined {
    return this.#disk?.fillsImage;
  }

  state(): DeviceState {
    const { sizeBytes = 0, layers = 0, remoteBytes = 0 } = this.#disk ?? {};
    const { remoteLayers = 0, provedLayers = 0 } = this.#disk ?? {};
    const { readErrors, hot } = this;
    const stats = statsOf(this.blobs);
    const { state: fillState = '', problem: fillProblem = '' } =
      this.#fill.progressOf(this.#id) ?? {};
    const fill = { fillState, fillProblem };
    return {
      sizeBytes,
      layers,
      remoteBytes,
      remoteLayers,
      provedLayers,
      ...stats,
      readErrors,
      ...waitsOf(this.blobs),
      ...fill,
      hotPages: hot?.arrived ?? 0,
      hotPagesRead: hot?.read ?? 0,
    };
  }

  async endReads(): Promise<void> {
    if (this.#closed === undefined) await this.#worker.calls.call('endReads', { id: this.#id });
  }

  async detach(): Promise<void> {
    if (this.#closed === undefined) {
      const { isGone, error } = await this.#worker.calls.call('detach', { id: this.#id });
      this.isGone = isGone;
      if (error !== undefined) throw deserializedError(error);
    }
    await this.close();
  }

  async release(): Promise<void> {
    if (this.#closed === undefined) await this.#worker.calls.call('release', { id: this.#id });
    await this.close();
  }

  /** Closes all but the device. Idempotent. */
  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  async #close(): Promise<void> {
    this.replay?.stop();
    try {
      // Concurrently: closing the image ends the reads that its connections wait for.
      const removed = this.#export?.remove();
      await this.#worker.calls.call('close', { id: this.#id });
      await removed;
    } finally {
      this.memory.close();
      this.#onClosed();
    }
  }
}
