/**
 * Starts that a client has recorded, by `obdctl record`:
 *
 *   begin()     before a device of the image is attached, as the kernel's cache hides what it holds already
 *   take()      the image's next device is opened, with the read-ahead of starts whose pages are known (src/blockdev/read-ahead.ts)
 *   end()       the device is still attached: what it read is kept, and published if the client asked for it
 *
 * That read-ahead makes the record fit. Measured with a shell that reads 1 MiB of a file, and a next start with 32 KiB of
 * read-ahead: a record without read-ahead had 540 pages, and the start missed 7 times around them; one with 32 KiB had 756, and
 * the start missed none.
 *
 * A recording that no device takes within UNUSED_MS is dropped, and so is one whose device goes first.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';
import { mountsOver, readMountTable } from '../io/mount-table.js';
import { pageCount, parseLoadOrder } from '../load-order/load-order.js';
import { type ExpectedImage, type ExpectedLayer, startKey } from './expected-image.js';
import type { ExpectedStarts, ServingDevice } from './expected-starts.js';
import type { OrderPublisher, StoredOrder } from './order-publisher.js';
import type { WriteHot } from './worker-messages.js';

/** A client prepares a container in seconds, unless its registry is away. */
const UNUSED_MS = 300_000;
/** More than one ReadRecorder takes to end by itself. */
const QUIET_MS_MAX = 90_000;
/** A recording has a device. */
const RECORDINGS_MAX = 64;
/** Enough to tell the containers of an image. */
const PLACES_SHOWN_MAX = 8;

/** A device whose start is recorded. */
export interface RecordedDevice {
  /** Ends the recording. Calls recorded() before it resolves, if anything was read. */
  readonly endRecording: () => Promise<void>;
  readonly writeHot: WriteHot;
}

interface RecordedStart extends StoredOrder {
  /** The document of this start alone. */
  readonly document: Uint8Array;
  /** Its pages. */
  readonly pages: number;
}

export class Recordings {
  readonly #starts: Pick<ExpectedStarts, 'serving' | 'expect'>;
  readonly #publisher: Pick<OrderPublisher, 'store'>;
  readonly #recordings = new Map<string, Recording>();

  constructor(
    starts: Pick<ExpectedStarts, 'serving' | 'expect'>,
    publisher: Pick<OrderPublisher, 'store'>,
  ) {
    this.#starts = starts;
    this.#publisher = publisher;
  }

  /**
   * Has the next start of the image recorded.
   *
   * @returns The key for end().
   * @throws {ObdError} `FailedPrecondition` while a device of the image is attached; `Busy` for too many recordings.
   */
  async begin(image: ExpectedImage, untilQuiet: boolean): Promise<string> {
    const key = startKey(image.layers);
    const [device] = this.#starts.serving(image.layers);
    if (device !== undefined) {
      const message = `Cannot record a start of ${nameOf(image)}: a device of it is attached${await placesOf(device)}, and the kernel reads nothing twice; remove the image's containers, then the image (\`ctr images rm --sync\`), or its mount (\`obdctl umount\`)`;
      throw new ObdError(ErrorCodes.FailedPrecondition, message);
    }
    if (this.#recordings.size >= RECORDINGS_MAX && !this.#recordings.has(key)) {
      const message = `Cannot record a start of ${nameOf(image)}: ${RECORDINGS_MAX} recordings are under way; wait for one to end`;
      throw new ObdError(ErrorCodes.Busy, message);
    }
    const recording = new Recording(image, untilQuiet);
    this.#recordings.set(key, recording);
    this.#starts.expect(image);
    setTimeout(() => {
      if (recording.device === undefined) this.#drop(recording);
    }, UNUSED_MS).unref();
    return key;
  }

  /** The recording of the start that this device is about to serve, if one is wanted. */
  take(layers: readonly ExpectedLayer[], device: RecordedDevice): Recording | undefined {
    const recording = this.#recordings.get(startKey(layers));
    if (recording === undefined || recording.device !== undefined) return undefined;
    recording.device = device;
    return recording;
  }

  /** The device of a recording is gone. */
  closed(recording: Recording): void {
    recording.gone();
    this.#drop(recording);
  }

  /**
   * Ends a recording, or waits for its own end.
   *
   * @param publishes - Whether the load order and its hot blob are published.
   * @param signal - Ends the wait; nothing is kept then.
   * @throws {ObdError} `NotFound` for an unknown key, `FailedPrecondition` if there was no device or it read nothing, and what
   *   OrderPublisher.store() throws.
   */
  async end(key: string, publishes: boolean, signal: AbortSignal): Promise<RecordedStart> {
    const recording = this.#recordings.get(key);
    if (recording === undefined) {
      const message =
        'Cannot end the recording: obd-blockd has none of that image; its device is gone, or the daemon has restarted; record again';
      throw new ObdError(ErrorCodes.NotFound, message);
    }
    try {
      const { image, device, untilQuiet } = recording;
      if (device === undefined) {
        throw nothing(image, 'no device of it was attached; start a container of it');
      }
      if (untilQuiet) await recording.overWithin(QUIET_MS_MAX, signal);
      signal.throwIfAborted();
      await device.endRecording();
      const document = recording.order;
      if (document === undefined) throw nothing(image, 'its device is gone, or read nothing');
      const order = parseLoadOrder(Buffer.from(document), `of ${nameOf(image)}`);
      const stored = await this.#publisher.store(image, order, device.writeHot, publishes);
      return { ...stored, document, pages: pageCount(order) };
    } finally {
      this.#drop(recording);
    }
  }

  #drop(recording: Recording): void {
    const key = startKey(recording.image.layers);
    if (this.#recordings.get(key) === recording) this.#recordings.delete(key);
  }
}

/** One of them. */
export class Recording {
  readonly image: ExpectedImage;
  readonly untilQuiet: boolean;
  device: RecordedDevice | undefined;
  /** The document, once the recording is over. */
  order: Uint8Array | undefined;
  readonly #over: Promise<void>;
  #end: () => void = () => {};

  constructor(image: ExpectedImage, untilQuiet: boolean) {
    this.image = image;
    this.untilQuiet = untilQuiet;
    this.#over = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  recorded(order: Uint8Array): void {
    this.order = order;
    this.#end();
  }

  gone(): void {
    this.#end();
  }

  /** Resolves when it is over, after `ms`, or with the signal. */
  async overWithin(ms: number, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const either = AbortSignal.any([over.signal, signal]);
    const limit = sleep(ms, undefined, { signal: either }).catch(() => {});
    await Promise.race([this.#over, limit]);
    over.abort();
  }
}

function nameOf({ host, repository }: ExpectedImage): string {
  return `${host}/${repository}`;
}

/** ` (/dev/ublkb0, mounted at /a, /b)`: mounts of containers and of `obdctl mount` tell who uses it. */
async function placesOf({ path }: ServingDevice): Promise<string> {
  if (path === '') return '';
  const targets = mountsOver(path, await readMountTable().catch(() => []));
  const shown = targets.slice(0, PLACES_SHOWN_MAX).join(', ');
  const more = targets.length > PLACES_SHOWN_MAX ? ', ...' : '';
  return targets.length === 0 ? ` (${path})` : ` (${path}, mounted at ${shown}${more})`;
}

function nothing(image: ExpectedImage, why: string): ObdError {
  const message = `Cannot record a start of ${nameOf(image)}: ${why}`;
  return new ObdError(ErrorCodes.FailedPrecondition, message);
}
