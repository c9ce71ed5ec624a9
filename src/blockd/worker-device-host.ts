/**
 * Serves devices on a pool of threads. This thread keeps what they share: the cache and its fetches, the names at the NBD
 * socket, and the figures. attach() opens the image, serves it over NBD under its device's id, and attaches it to the
 * kernel. Detaching undoes these steps in reverse order, and a failed attach leaves nothing.
 */
import type { NbdExport, NbdServer } from '../blockdev/nbd/nbd-server.js';
import type { DeviceFailure, TransportName } from '../blockdev/transport.js';
import { BlobFile } from '../cache/blob-file.js';
import type { BlockCache } from '../cache/block-cache.js';
import { type CachedBlob, figuresOf } from '../cache/cached-blob.js';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { type IndexAccount, IndexBudget } from '../io/index-budget.js';
import type { RegistryClient } from '../registry/registry-client.js';
import type { DeviceHost, DeviceState, HostedDevice } from './device-host.js';
import { receivedError } from './sent-error.js';
import type { Handlers } from './thread-calls.js';
import type { MainCalls, OpenedDisk, WorkerSettings } from './worker-messages.js';
import { type PooledWorker, WorkerPool } from './worker-pool.js';

export interface WorkerHostOptions extends Omit<WorkerSettings, 'decodedBytes'> {
  /** Memory for the indexes of all images together. */
  readonly indexBytes: number;
  readonly cache: BlockCache;
  readonly client: Pick<RegistryClient, 'blobRanges'>;
  readonly nbd: NbdServer;
  /** Called once for every read that is answered with an error; the place to log it. */
  readonly onReadError: (failure: DeviceFailure) => void;
  /** Called once for a device that answers EIO from now on. */
  readonly onDeviceDeath: (id: string, path: string) => void;
  /**
   * A thread has ended by itself, or is stuck. Its devices wait for a process that resumes them, so this process should
   * end.
   */
  readonly onDeath: (error: Error) => void;
  /** An attached image has so many remote layers without checksums. */
  readonly onUnchecked: (id: string, layers: number) => void;
  /** No further thread can be started, since the program was replaced; devices share the existing threads. */
  readonly onUnloadable: (error: Error) => void;
}

export class WorkerDeviceHost implements DeviceHost {
  readonly #options: WorkerHostOptions;
  readonly #indexBudget: IndexBudget;
  readonly #pool: WorkerPool;
  readonly #devices = new Map<string, WorkerDevice>();

  constructor(options: WorkerHostOptions) {
    this.#options = options;
    const { nbdSocketPath, directory, readDeadlineMs, onDeath, onUnloadable } = options;
    this.#indexBudget = new IndexBudget(options.indexBytes);
    const settings = { nbdSocketPath, directory, readDeadlineMs };
    const handlers = () => this.#handlers();
    this.#pool = new WorkerPool({ settings, handlers, onDeath, onUnloadable });
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
    const worker = await this.#pool.take();
    if (this.#devices.has(id)) {
      this.#pool.giveBack(worker);
      throw new ObdError(ErrorCodes.AlreadyExists, `Cannot ${how} "${id}": it is served already`);
    }
    const memory = this.#indexBudget.account(how === 'resume');
    const device = new WorkerDevice(id, worker, memory, () => {
      this.#devices.delete(id);
      this.#pool.giveBack(worker);
    });
    this.#devices.set(id, device);
    try {
      await device.open(configPath, this.#options.nbd);
      await device.connect(how, transport);
      if (how === 'attach' && device.uncheckedLayers > 0) {
        this.#options.onUnchecked(id, device.uncheckedLayers);
      }
      return device;
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  /** The calls that one worker may make. */
  #handlers(): Handlers<MainCalls> {
    const { cache, client, onReadError, onDeviceDeath } = this.#options;
    const blobs = new Map<number, CachedBlob>();
    let last = 0;
    return {
      openBlob: async ({ id, address }) => {
        const { host, repository, digest, sizeBytes } = address;
        const ranges = await client.blobRanges(host, repository, digest, sizeBytes);
        const device = this.#devices.get(id);
        await device?.memory.charge(BlobFile.memoryBytes(ranges.sizeBytes), ranges.label);
        const handle = await cache.openBlob(ranges);
        const blob = ++last;
        blobs.set(blob, handle);
        device?.blobs.push(handle);
        return { blob, share: handle.share() };
      },
      fetch: async ({ blob, offset, length, waitMs }) =>
        await blobs.get(blob)?.fetch(offset, length, waitMs),
      distrusted: ({ blob, offset, length }) => blobs.get(blob)?.distrusted(offset, length),
      lost: ({ blob, offset, length, problem }) => blobs.get(blob)?.lost(offset, length, problem),
      closeBlob: ({ blob }) => {
        blobs.get(blob)?.close();
        blobs.delete(blob);
      },
      died: ({ id }) => {
        const device = this.#devices.get(id);
        if (device === undefined) return;
        device.isDead = true;
        onDeviceDeath(id, device.path);
      },
      readError: ({ id, offset, length, error }) => {
        const device = this.#devices.get(id);
        if (device !== undefined) device.readErrors++;
        onReadError({ id, offset, length, error: receivedError(error) });
      },
    };
  }
}

/** The waits of a device's reads, over all of its blobs. */
function waitsOf(blobs: readonly CachedBlob[]) {
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
  readonly blobs: CachedBlob[] = [];
  /** Charged by the main thread for what it keeps of the blobs, and by the worker for the indexes. */
  readonly memory: IndexAccount;
  readonly #id: string;
  readonly #worker: PooledWorker;
  readonly #forget: () => void;
  #disk: OpenedDisk | undefined;
  #export: NbdExport | undefined;
  #closed: Promise<void> | undefined;

  constructor(id: string, worker: PooledWorker, memory: IndexAccount, forget: () => void) {
    this.#id = id;
    this.memory = memory;
    this.#worker = worker;
    this.#forget = forget;
  }

  async open(configPath: string, nbd: NbdServer): Promise<void> {
    const id = this.#id;
    const { calls } = this.#worker;
    const disk = await calls.call('open', { id, configPath, memory: this.memory.shared });
    this.memory.opened();
    this.#disk = disk;
    this.#export = nbd.addRemoteExport(id, {
      ...disk,
      take: ({ fd, structured, allocation, rest, ended }) => {
        const taken = { id, fd, structured, allocation, rest: new Uint8Array(rest) };
        calls.call('connection', taken).then(ended, ended);
      },
      end: () => calls.call('endConnections', { id }),
    });
  }

  async connect(how: 'attach' | 'resume', transport: TransportName): Promise<void> {
    this.path = await this.#worker.calls.call(how, { id: this.#id, transport });
  }

  get uncheckedLayers(): number {
    return this.#disk?.uncheckedLayers ?? 0;
  }

  state(): DeviceState {
    const { sizeBytes = 0, layers = 0, remoteBytes = 0 } = this.#disk ?? {};
    const { readErrors } = this;
    const figures = figuresOf(this.blobs);
    return { sizeBytes, layers, remoteBytes, ...figures, readErrors, ...waitsOf(this.blobs) };
  }

  async endReads(): Promise<void> {
    if (this.#closed === undefined) await this.#worker.calls.call('endReads', { id: this.#id });
  }

  async detach(): Promise<void> {
    if (this.#closed === undefined) {
      const { isGone, error } = await this.#worker.calls.call('detach', { id: this.#id });
      this.isGone = isGone;
      if (error !== undefined) throw receivedError(error);
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
    try {
      // Concurrently: closing the image ends the reads that its connections wait for.
      const removed = this.#export?.remove();
      await this.#worker.calls.call('close', { id: this.#id });
      await removed;
    } finally {
      this.memory.close();
      this.#forget();
    }
  }
}
