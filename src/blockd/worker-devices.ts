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
import { setReadAhead } from '../blockdev/read-ahead.js';
import { SeveralObservers } from '../blockdev/several-observers.js';
import type { AttachedDevice, Transport, TransportName } from '../blockdev/transport.js';
import type { makeTransports, Transports } from '../blockdev/transports.js';
import type { VirtualDisk } from '../blockdev/virtual-disk.js';
import type { BlobReader } from '../cache/blob-reader.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { fetchOrder } from '../image/fetch-order.js';
import { readImageConfig } from '../image/image-config.js';
import { tracedRanges, traceOf } from '../image/image-trace.js';
import { type OpenedImage, openImage } from '../image/open-image.js';
import { collectGarbageSoon } from '../io/collect-garbage.js';
import { IndexAccount, type SharedIndexAccount } from '../io/index-budget.js';
import { LAYER_FORMATS } from '../layers/layer-formats.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { RemoteBlobs } from './blob-calls.js';
import { ReadRecorder } from './read-recorder.js';
import { RecordedTraces } from './recorded-traces.js';
import { type RequestNote, RequestNotes } from './request-notes.js';
import { serializedError } from './serialized-error.js';
import { type Handlers, ThreadCalls } from './thread-calls.js';
import type { MainCalls, OpenedDisk, WorkerCalls, WorkerSettings } from './worker-messages.js';

interface ServedImage {
  readonly image: OpenedImage<BlobReader>;
  /** Of the image. */
  readonly disk: EndableDisk;
  readonly connections: DiskConnections;
  /** The file for the trace of its starts. Undefined for an image with its own trace, and for one that is all on this machine. */
  readonly recorded: string | undefined;
  recorder: ReadRecorder | undefined;
  /** Settles when the recorded trace is kept, or cannot be. */
  keeping: Promise<void> | undefined;
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
  readonly #traces: RecordedTraces;

  /** @param transportsOf - Makes the transports of this thread. */
  constructor(port: MessagePort, settings: WorkerSettings, transportsOf: typeof makeTransports) {
    const { nbdSocketPath, directory, tracesDirectory, readDeadlineMs, decodedBytes } = settings;
    this.#traces = new RecordedTraces(tracesDirectory);
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
    const image = await openImage(config, {
      openBlob: (address) => this.#blobs.open({ id, address }),
      formats: LAYER_FORMATS,
      decoded: this.#decoded,
      memory: new IndexAccount(memory),
    });
    for (const blob of image.remote) blob.opened();
    const recorded = isStart ? this.#pathOfTrace(image) : undefined;
    const advice = isStart ? await this.#adviceOf(image, recorded) : NO_ADVICE;
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
      recorded,
      recorder: undefined,
      keeping: undefined,
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

  #pathOfTrace({ trace, remote, layers }: OpenedImage<BlobReader>): string | undefined {
    if (trace !== undefined || remote.length < layers) return undefined;
    return this.#traces.pathOf(remote.map(({ digest }) => digest));
  }

  /**
   * Looks for the image's own trace, or one that was recorded here. No fault of a trace keeps the image from being served.
   */
  async #adviceOf(
    { trace, files, remote }: OpenedImage<BlobReader>,
    recorded: string | undefined,
  ): Promise<Pick<OpenedDisk, 'order' | 'traceProblem'>> {
    const known = trace ?? (recorded === undefined ? undefined : { file: recorded });
    if (known === undefined) return NO_ADVICE;
    try {
      const order = fetchOrder(await tracedRanges(known, files), remote);
      return { order, traceProblem: undefined };
    } catch (error) {
      const isRecorded = trace === undefined && recorded !== undefined;
      if (isRecorded && hasCode(error, ErrorCodes.Corrupt)) await this.#traces.discard(recorded);
      const isNew = isRecorded && hasCode(error, ErrorCodes.NotFound);
      return { order: undefined, traceProblem: isNew ? undefined : serializedError(error) };
    }
  }

  /** Records what the start reads that now begins. */
  #record(id: string, served: ServedImage, path: string): void {
    const { image } = served;
    served.recorder = new ReadRecorder((reads) => {
      served.recorder = undefined;
      setObservers(served);
      const trace = traceOf(reads, image.disk, image.files);
      served.keeping = this.#traces.keep(path, trace).catch((error: unknown) => {
        this.#main.notify('unkept', { id, error: serializedError(error) });
      });
    });
    setObservers(served);
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
    served.device = await connect(this.#transports[transport], id, disk);
    disk.readWaitMs = this.#readDeadlineMs;
    await setReadAhead(served.device.path);
    return served.device.path;
  }

  async #detach(id: string): Promise<ReturnType<WorkerCalls['detach']>> {
    const { device } = this.#find(id);
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
    const ended = served.connections.end();
    served.image.close();
    await ended;
    await served.keeping;
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

function setObservers({ disk, recorder, notes }: ServedImage): void {
  const all = [recorder, notes].filter((each) => each !== undefined);
  disk.observer = all.length === 2 ? new SeveralObservers(all) : all[0];
}
