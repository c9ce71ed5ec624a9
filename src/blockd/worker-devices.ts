/**
 * The devices of one worker thread: their images, their transports, and the NBD connections that read them. A read uses
 * only this thread, unless its bytes are not cached: then the main thread fetches them.
 */
import { closeSync } from 'node:fs';
import type { MessagePort } from 'node:worker_threads';
import { EndableDisk } from '../blockdev/endable-disk.js';
import { DiskConnections } from '../blockdev/nbd/disk-connections.js';
import type { NegotiatedOptions } from '../blockdev/nbd/protocol.js';
import { ReplyBuffers } from '../blockdev/nbd/reply-buffers.js';
import { transmissionFlags } from '../blockdev/nbd/transmission-flags.js';
import { READ_AHEAD_KIB, readAheadKib, setReadAhead } from '../blockdev/read-ahead.js';
import { SeveralObservers } from '../blockdev/several-observers.js';
import type { AttachedDevice, Transport, TransportName } from '../blockdev/transport.js';
import type { makeTransports, Transports } from '../blockdev/transports.js';
import type { VirtualDisk } from '../blockdev/virtual-disk.js';
import { BlobReader } from '../cache/blob-reader.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { HotSource } from '../hot-blob/hot-blob-writer.js';
import { HotFile } from '../hot-blob/hot-file.js';
import { HotPages, PAGE_BYTES } from '../hot-blob/hot-pages.js';
import { HotProgress } from '../hot-blob/hot-progress.js';
import { fetchOrder } from '../image/fetch-order.js';
import { type ImageConfig, readImageConfig } from '../image/image-config.js';
import { tracedRanges } from '../image/image-trace.js';
import { type OpenedImage, openImage, splitLayers } from '../image/open-image.js';
import { collectGarbageSoon } from '../io/collect-garbage.js';
import { IndexAccount, type SharedIndexAccount } from '../io/index-budget.js';
import type { RandomAccessFile, StoredRange } from '../io/random-access-file.js';
import { LAYER_FORMATS } from '../layers/layer-formats.js';
import { FirstUses } from '../load-order/first-uses.js';
import { encodeLoadOrder } from '../load-order/load-order.js';
import { orderOf } from '../load-order/recorded-order.js';
import { NO_WISH } from '../load-order/select-order.js';
import { parseBlobUrl } from '../oci/blob-url.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { BackgroundFile } from './background-file.js';
import { RemoteBlobs } from './blob-calls.js';
import type { ExpectedImage, ExpectedLayer } from './expected-image.js';
import { arrivingBlocks, hotBlocks } from './hot-blocks.js';
import { writeHotFile } from './hot-file-writer.js';
import { type BlocksUntil, readPages } from './read-pages.js';
import { type DiskRead, ReadRecorder } from './read-recorder.js';
import { type RequestNote, RequestNotes } from './request-notes.js';
import { type SerializedError, serializedError } from './serialized-error.js';
import { storedBlocks } from './stored-blocks.js';
import { type Handlers, ThreadCalls } from './thread-calls.js';
import { TreeWalk } from './tree-walk.js';
import { TrustedStart } from './trusted-start.js';
import type {
  MainCalls,
  OpenedDisk,
  PagesRead,
  SharedHotPages,
  StartTerms,
  WorkerCalls,
  WorkerSettings,
  WrittenBlob,
} from './worker-messages.js';

interface ServedImage {
  readonly image: OpenedImage<BlobReader>;
  /** Of the image. */
  readonly disk: EndableDisk;
  readonly connections: DiskConnections;
  /** Of its start. */
  readonly hot: HotPages | undefined;
  /** Whether they may be read ahead of the container. */
  readonly readsAhead: boolean;
  /** Watches whether the start reads them, until they are read ahead. */
  trusted: TrustedStart | undefined;
  /** Watches whether the start walks through the whole tree. */
  walk: TreeWalk | undefined;
  /** Ends with the image, or when its pages turn out to be of other starts: nothing is read ahead then. */
  readonly closing: AbortController;
  readonly layers: readonly ExpectedLayer[] | undefined;
  /** The layers, if their reads are to be recorded. */
  readonly recorded: readonly ExpectedLayer[] | undefined;
  /** If a client wants that recording. */
  readonly recording: StartTerms['recording'];
  /** The device's read-ahead while the start lasts. */
  readAheadKib: number;
  recorder: ReadRecorder | undefined;
  notes: RequestNotes | undefined;
  /** Once it is attached. */
  device: AttachedDevice | undefined;
}

const NO_ADVICE = { order: undefined, traceProblem: undefined };

export class WorkerDevices {
  readonly #main: ThreadCalls<MainCalls, WorkerCalls>;
  readonly #transports: Transports;
  readonly #decoded: DecodedBlocks;
  readonly #blobs: RemoteBlobs;
  readonly #buffers = new ReplyBuffers();
  readonly #served = new Map<string, ServedImage>();
  readonly #readDeadlineMs: number;

  /** @param transportsOf - Makes the transports of this thread. */
  constructor(port: MessagePort, settings: WorkerSettings, transportsOf: typeof makeTransports) {
    const { nbdSocketPath, directory, readDeadlineMs, decodedBytes } = settings;
    this.#readDeadlineMs = readDeadlineMs;
    this.#decoded = new DecodedBlocks(decodedBytes);
    this.#transports = transportsOf(nbdSocketPath, directory, {
      readDeadlineMs,
      onReadError: ({ id, error, offset, length }) =>
        this.#notifyReadError(id, error, offset, length),
      onDeath: (id) => this.#main.notify('died', { id }),
    });
    const attach = (to: Transport, id: string, disk: VirtualDisk) => to.attach(id, disk);
    const resume = (to: Transport, id: string, disk: VirtualDisk) => to.resume(id, disk);
    const handlers: Handlers<WorkerCalls> = {
      open: ({ id, configPath, isStart, memory }) =>
        this.#open(id, configPath, isStart, memory).finally(collectGarbageSoon),
      attach: ({ id, transport }) => this.#connect(id, transport, false, attach),
      readStored: ({ id }) => this.#readStored(id),
      forgetKnown: ({ id }) => this.#forgetKnown(id),
      endRecording: ({ id }) => this.#served.get(id)?.recorder?.end(),
      writeHot: ({ id, runs, path }) => this.#writeHot(id, runs, path),
      resume: ({ id, transport }) => this.#connect(id, transport, true, resume),
      observe: ({ id, isObserved }) => this.#observe(id, isObserved),
      detach: ({ id }) => this.#detach(id),
      endReads: ({ id }) => this.#served.get(id)?.disk.endLoads(),
      release: ({ id }) => this.#served.get(id)?.device?.release(),
      close: ({ id }) => this.#close(id).finally(collectGarbageSoon),
      connection: ({ id, fd, structured, allocation, rest }) =>
        this.#takeConnection(id, fd, { structured, allocation }, rest),
      endConnections: ({ id }) => this.#served.get(id)?.connections.end(),
      beat: () => {},
    };
    this.#main = new ThreadCalls(port, handlers);
    this.#blobs = new RemoteBlobs(this.#main);
  }

  async #open(
    id: string,
    configPath: string,
    isStart: boolean,
    memory: SharedIndexAccount,
  ): Promise<OpenedDisk> {
    const config = await readImageConfig(configPath);
    const expected = expectedImage(config);
    const terms = expected && (await this.#main.call('starting', { id, isStart, image: expected }));
    const recording = terms?.recording;
    const hot = terms?.hot && this.#hotPages(terms.hot);
    let image: OpenedImage<BlobReader>;
    try {
      image = await openImage(config, {
        openBlob: (address) => this.#blobs.open({ id, address }),
        formats: LAYER_FORMATS,
        decoded: this.#decoded,
        memory: new IndexAccount(memory),
        above: hot && ((digest, file) => hotFile(digest, file, hot)),
      });
    } catch (error) {
      hot?.file.close();
      throw error;
    }
    for (const blob of image.remote) blob.opened();
    const advice = isStart ? await traceAdvice(image) : NO_ADVICE;
    const isRecorded = recording !== undefined || (isStart && image.trace === undefined);
    const { layers, remoteBytes, uncheckedLayers, provedLayers } = image;
    const remoteLayers = image.remote.length;
    const disk = new EndableDisk(image.disk);
    const connections = new DiskConnections(disk, this.#buffers, (error, offset, length) =>
      this.#notifyReadError(id, error, offset, length),
    );
    this.#served.set(id, {
      image,
      disk,
      connections,
      hot,
      readsAhead: isStart && recording === undefined && terms?.hot?.isExact === true,
      trusted: undefined,
      walk: undefined,
      closing: new AbortController(),
      layers: expected?.layers,
      recorded: isRecorded ? expected?.layers : undefined,
      recording,
      readAheadKib: startReadAheadKib(recording, hot),
      recorder: undefined,
      notes: undefined,
      device: undefined,
    });
    const { label, sizeBytes } = disk;
    const flags = transmissionFlags(disk);
    const fillsImage = config.download?.enable;
    const counts = { layers, remoteLayers, uncheckedLayers, provedLayers };
    return { label, sizeBytes, ...counts, remoteBytes, fillsImage, flags, ...advice };
  }

  #observe(id: string, isObserved: boolean): void {
    const served = this.#served.get(id);
    if (served === undefined || (served.notes !== undefined) === isObserved) return;
    const send = (note: RequestNote) => this.#main.notify('request', { id, note });
    served.notes = isObserved ? new RequestNotes(send) : undefined;
    setObservers(served);
  }

  #hotPages({ file, index, indexBytes, progress }: SharedHotPages): HotPages {
    const reader = this.#blobs.reader(file);
    return new HotPages(reader, index, indexBytes, new HotProgress(index.pages, progress));
  }

  /** Records what the start reads that now begins. */
  #record(id: string, served: ServedImage, layers: readonly ExpectedLayer[]): void {
    const { image, recording } = served;
    const named = layers.map(({ digest, root }) => ({ digest, root }));
    const onEnd = (reads: readonly DiskRead[]) => {
      served.recorder = undefined;
      served.walk = undefined;
      setObservers(served);
      const { disk, files } = image;
      const readAheadBytes = served.readAheadKib * 1024;
      const about = { kind: 'recorded', readAheadBytes } as const;
      const order = orderOf(reads, { disk, files, layers: named }, about);
      this.#main.notify('recorded', { id, order: encodeLoadOrder(order) });
      // The start is over: its device is like any other now.
      const isServed = this.#served.get(id) === served;
      if (isServed && served.device !== undefined) void setReadAhead(served.device.path);
    };
    served.recorder = new ReadRecorder(onEnd, recording?.untilQuiet ?? true);
    if (served.hot === undefined) {
      served.walk = new TreeWalk(image.disk, () => {
        served.walk = undefined;
        setObservers(served);
        this.#main.notify('walked', { id });
      });
    }
    setObservers(served);
  }

  /** Once the start shows that it reads what is known, the rest of that is read ahead. */
  #watch(id: string, served: ServedImage, hot: HotPages): void {
    served.trusted = new TrustedStart(hot.progress, () => {
      served.trusted = undefined;
      setObservers(served);
      // A read is being answered.
      setImmediate(() => void this.#readAhead(id, served, hot));
    });
    setObservers(served);
  }

  async #readAhead(id: string, served: ServedImage, hot: HotPages): Promise<void> {
    const { image, layers = [] } = served;
    const files = layers.map(({ digest }, i) => ({ digest, file: image.files[i]! }));
    await this.#readPages(id, served, 'known', (signal) =>
      arrivingBlocks(hotBlocks(image.disk, files, hot), hot, signal),
    );
  }

  async #readStored(id: string): Promise<void> {
    const served = this.#served.get(id);
    // The start is over, or its known pages are read ahead.
    if (served?.recorder === undefined || served.hot !== undefined) return;
    // A recording for a client has only the reads of the container.
    if (served.recording !== undefined) return;
    const { disk, files } = served.image;
    const isStored = ({ blob, offset, length }: StoredRange) =>
      !(blob instanceof BlobReader) || blob.isStored(offset, length);
    await this.#readPages(id, served, 'stored', (signal) =>
      storedBlocks(disk, files, isStored, signal),
    );
  }

  async #readPages(
    id: string,
    { device, closing }: ServedImage,
    what: PagesRead,
    blocks: BlocksUntil,
  ): Promise<void> {
    const startedMs = performance.now();
    let pages = 0;
    let error: SerializedError | undefined;
    try {
      if (device !== undefined) pages = await readPages(device.path, what, blocks, closing.signal);
    } catch (err) {
      error = serializedError(err);
    }
    const ms = Math.round(performance.now() - startedMs);
    if (!closing.signal.aborted) this.#main.notify('pagesRead', { id, what, pages, ms, error });
  }

  async #writeHot(id: string, runs: Uint32Array, path: string): Promise<WrittenBlob | undefined> {
    const served = this.#find(id);
    const { image, recorded = [] } = served;
    const sources: HotSource[] = [];
    /** By layer of the image: its place in `sources`, -1 for a layer that no hash tree proves. */
    const places = recorded.map(({ digest, root }, layer) => {
      const file = image.files[layer];
      const tree = image.trees[layer];
      if (file === undefined || tree === undefined || root !== tree.root) return -1;
      // An image may have the same layer twice: the pages of one serve both.
      const same = sources.findIndex((source) => source.digest === digest);
      if (same !== -1) return same;
      return sources.push({ digest, root, file: new BackgroundFile(file), tree }) - 1;
    });
    const proved = new FirstUses();
    for (let i = 0; i < runs.length; i += 3) {
      const layer = places[runs[i]!] ?? -1;
      const pages = Math.ceil((sources[layer]?.file.sizeBytes ?? 0) / PAGE_BYTES);
      const leaf = runs[i + 1]!;
      // A published order may name what no layer has.
      const count = Math.min(runs[i + 2]!, pages - leaf);
      if (count > 0) proved.addPages({ layer, leaf, count, ms: 0, starts: 1 });
    }
    if (proved.pageCount === 0) return undefined;
    const numbers = proved.runs.flatMap(({ layer, leaf, count }) => [layer, leaf, count]);
    try {
      return await writeHotFile(sources, Uint32Array.from(numbers), path);
    } catch (error) {
      if (this.#served.get(id) === served) throw error;
      // Its files were closed under the reads.
      const message = `Cannot read the pages of "${id}": it is gone`;
      throw new ObdError(ErrorCodes.NotFound, message, {}, error);
    }
  }

  async #connect(
    id: string,
    transport: TransportName,
    isOrphaned: boolean,
    connect: (transport: Transport, id: string, disk: VirtualDisk) => Promise<AttachedDevice>,
  ): Promise<string> {
    const served = this.#find(id);
    const { disk } = served;
    // A container may read an orphaned device already, so its reads may wait from the start; an attach reports a failure.
    if (isOrphaned) disk.readWaitMs = this.#readDeadlineMs;
    else if (served.recorded !== undefined) this.#record(id, served, served.recorded);
    if (served.hot !== undefined && served.readsAhead) this.#watch(id, served, served.hot);
    served.device = await connect(this.#transports[transport], id, disk);
    disk.readWaitMs = this.#readDeadlineMs;
    // Only a recorder sees the end of a start, which sets the usual read-ahead again.
    const kib = served.recorder === undefined ? READ_AHEAD_KIB : served.readAheadKib;
    await setReadAhead(served.device.path, kib);
    return served.device.path;
  }

  async #forgetKnown(id: string): Promise<void> {
    const served = this.#served.get(id);
    if (served === undefined || served.recording !== undefined) return;
    served.trusted = undefined;
    served.closing.abort();
    setObservers(served);
    served.readAheadKib = READ_AHEAD_KIB;
    if (served.device !== undefined) await setReadAhead(served.device.path);
  }

  async #detach(id: string): Promise<ReturnType<WorkerCalls['detach']>> {
    const { device, closing } = this.#find(id);
    closing.abort();
    try {
      await device?.detach();
      return { isGone: true, error: undefined };
    } catch (error) {
      return { isGone: device?.isGone ?? true, error: serializedError(error) };
    }
  }

  /** Closing the image ends the reads that its connections wait for, perhaps on a registry that does not answer. */
  async #close(id: string): Promise<void> {
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    served.recorder?.end();
    served.closing.abort();
    const ended = served.connections.end();
    served.image.close();
    served.hot?.file.close();
    await ended;
  }

  async #takeConnection(
    id: string,
    fd: number,
    options: NegotiatedOptions,
    rest: Uint8Array,
  ): Promise<void> {
    const served = this.#served.get(id);
    if (served === undefined) {
      // It was closed while the connection was on its way.
      closeSync(fd);
      return;
    }
    await served.connections.serve(fd, options, rest);
  }

  #find(id: string): ServedImage {
    const served = this.#served.get(id);
    if (served !== undefined) return served;
    throw new ObdError(ErrorCodes.NotFound, `Cannot find "${id}": no image of it is open`);
  }

  #notifyReadError(id: string, error: unknown, offset: number, length: number): void {
    this.#main.notify('readError', { id, offset, length, error: serializedError(error) });
  }
}

/** Undefined for an image that is not all in one repository. */
function expectedImage(config: ImageConfig): ExpectedImage | undefined {
  const { blocks } = splitLayers(config, { formats: LAYER_FORMATS });
  const repository = parseBlobUrl(config.repoBlobUrl);
  const isRemote = blocks.every(({ file, dir, digest, repoBlobUrl }) => {
    const isHere = Boolean(file) || Boolean(dir);
    return digest && !isHere && (!repoBlobUrl || repoBlobUrl === config.repoBlobUrl);
  });
  if (repository === undefined || blocks.length === 0 || !isRemote) return undefined;
  const layers = blocks.map(({ digest = '', size = 0, hashTree }) => ({
    digest,
    sizeBytes: size,
    root: hashTree?.root,
  }));
  const unknown = { manifest: undefined, manifestType: '', loadOrder: undefined, wish: NO_WISH };
  return { ...repository, ...unknown, layers };
}

/** The chunks that the image's own trace names. No fault of a trace keeps the image from being served. */
async function traceAdvice({
  trace,
  files,
  remote,
}: OpenedImage<BlobReader>): Promise<Pick<OpenedDisk, 'order' | 'traceProblem'>> {
  if (trace === undefined) return NO_ADVICE;
  try {
    return { order: fetchOrder(await tracedRanges(trace, files), remote), traceProblem: undefined };
  } catch (error) {
    return { order: undefined, traceProblem: serializedError(error) };
  }
}

function hotFile(digest: string, file: RandomAccessFile, hot: HotPages): RandomAccessFile {
  const runs = hot.runsOf(digest);
  return runs === undefined ? file : new HotFile(file, hot, runs);
}

/** A recording for other starts reads with their read-ahead. Pages whose stream has failed already say nothing. */
function startReadAheadKib(recording: StartTerms['recording'], hot: HotPages | undefined): number {
  return readAheadKib(recording !== undefined || hot?.progress.hasFailed === false);
}

function setObservers({ disk, recorder, notes, trusted, walk }: ServedImage): void {
  const all = [recorder, notes, trusted, walk].filter((each) => each !== undefined);
  disk.observer = all.length > 1 ? new SeveralObservers(all) : all[0];
}
