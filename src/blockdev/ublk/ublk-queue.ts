/**
 * Answers the requests of one ublk device from its disk. The kernel copies read data from, and data to write to, the
 * memory of each request's tag. The disk works on that memory directly.
 *
 *   1. Reads that the disk can answer now are answered in the tick in which they arrive, and committed together, or
 *      whenever COMMIT_BYTES of them are there: no promise, and a view only where the last one of that tag does not fit.
 *   2. Slower requests run concurrently, and each is answered when it is done. If one fails, that request alone fails,
 *      and it is reported once.
 *   3. As many requests are in flight as the device has tags, each with at most the device's largest request.
 */
import { SECTOR_BYTES } from '../../io/block-sizes.js';
import { DiskRequests, type OnDone, type ReportFailure } from '../disk-requests.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { type NativeQueue, ublkAddon } from './ublk-addon.js';
import { Answers, REQUEST_NO_UNMAP, Requests } from './ublk-protocol.js';

/** Sends the first of many large reads before the last is decoded. */
const COMMIT_BYTES = 256 << 10;
const READY_COLUMNS = 4;
const NO_BYTES = new Uint8Array(0);

/** A request that was not answered in the tick in which it arrived. */
interface Unanswered {
  readonly flags: number;
  readonly bytes: number;
  readonly offset: number;
}

export class UblkQueue {
  #requests: DiskRequests;
  readonly #ioBytesMax: number;
  readonly #native: NativeQueue;
  /** The last view of each tag's memory. */
  readonly #views: Uint8Array[];
  #answered = 0;
  #answeredBytes = 0;
  /** leave() was called, and not resume() or refuse() after it. */
  #left = false;
  #refusing = false;
  #isStopped = false;
  /** By tag. */
  readonly #unanswered = new Map<number, Unanswered>();

  /** @throws system errors, of opening `path` or of fetching its requests. */
  constructor(
    path: string,
    depth: number,
    ioBytesMax: number,
    disk: VirtualDisk,
    report: ReportFailure,
  ) {
    this.#requests = new DiskRequests(disk, report);
    this.#ioBytesMax = ioBytesMax;
    this.#views = new Array<Uint8Array>(depth).fill(NO_BYTES);
    this.#native = new ublkAddon.Queue(
      path,
      depth,
      ioBytesMax,
      (count) => this.#take(count),
      () => {
        this.#isStopped = true;
        // The process that stopped the device cannot delete it while it is open here.
        void this.close();
      },
    );
  }

  /** The kernel has taken all requests back: there is no device any more. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Stops answering, and keeps unanswered requests. Resolves when the disk is no longer used. Idempotent. */
  async leave(): Promise<void> {
    if (!this.#left) {
      this.#commit();
      this.#native.leave();
      this.#left = true;
    }
    await this.#requests.stop();
  }

  /** After leave() has resolved: continues from another disk of the same bytes, with the unanswered requests first. */
  resume(disk: VirtualDisk, report: ReportFailure): void {
    this.#requests = new DiskRequests(disk, report);
    this.#continue();
  }

  /** After leave() has resolved: answers everything with an error, the unanswered requests first. */
  refuse(): void {
    this.#refusing = true;
    this.#continue();
  }

  #continue(): void {
    this.#left = false;
    this.#native.resume();
    const requests = [...this.#unanswered];
    this.#unanswered.clear();
    for (const [tag, { flags, bytes, offset }] of requests) this.#handle(tag, flags, bytes, offset);
    this.#commit();
  }

  /** Gives up unanswered requests of a device that cannot have a user, or has none (native/ublk says why). Idempotent. */
  async close(): Promise<void> {
    await this.leave();
    this.#native.close();
  }

  #take(count: number): void {
    const { ready } = this.#native;
    for (let i = 0; i < count; i++) {
      const at = i * READY_COLUMNS;
      const flags = ready[at + 1]!;
      const bytes = ready[at + 2]! * SECTOR_BYTES;
      this.#handle(ready[at]!, flags, bytes, ready[at + 3]! * SECTOR_BYTES);
    }
    this.#commit();
  }

  #handle(tag: number, flags: number, bytes: number, offset: number): void {
    const request = flags & 0xff;
    if (this.#refusing) {
      this.#answer(tag, Answers.Io);
    } else if (request === Requests.Read) {
      const target = this.#view(tag, bytes);
      if (this.#requests.tryRead(target, offset)) {
        this.#answer(tag, bytes);
        this.#answeredBytes += bytes;
        if (this.#answeredBytes >= COMMIT_BYTES) this.#commit();
      } else {
        this.#requests.read(target, offset, this.#answering(tag, { flags, bytes, offset }, bytes));
      }
    } else {
      this.#change(tag, flags, bytes, offset);
    }
  }

  #change(tag: number, flags: number, bytes: number, offset: number): void {
    const request = flags & 0xff;
    const requests = this.#requests;
    const what = { flags, bytes, offset };
    if (requests.writable === undefined) {
      this.#answer(tag, request === Requests.Flush ? 0 : Answers.Unsupported);
    } else if (request === Requests.Write) {
      const source = this.#view(tag, bytes);
      requests.write(source, offset, false, this.#answering(tag, what, bytes));
    } else if (request === Requests.Flush) {
      requests.flush(this.#answering(tag, what, 0));
    } else if (request === Requests.Discard || request === Requests.WriteZeroes) {
      const mayUnmap = request === Requests.Discard || (flags & REQUEST_NO_UNMAP) === 0;
      requests.zero(offset, bytes, mayUnmap, false, this.#answering(tag, what, 0));
    } else {
      this.#answer(tag, Answers.Unsupported);
    }
  }

  /** Answers a request when it is done, with `result` or with its error. */
  #answering(tag: number, what: Unanswered, result: number): OnDone {
    this.#unanswered.set(tag, what);
    return (errno) => {
      // The next server answers it.
      if (this.#left) return;
      this.#unanswered.delete(tag);
      if (this.#answered === 0) queueMicrotask(() => this.#commit());
      this.#answer(tag, errno === 0 ? result : -errno);
    };
  }

  #view(tag: number, bytes: number): Uint8Array {
    const last = this.#views[tag]!;
    if (last.length === bytes) return last;
    const view = new Uint8Array(this.#native.memory, tag * this.#ioBytesMax, bytes);
    this.#views[tag] = view;
    return view;
  }

  #answer(tag: number, result: number): void {
    const at = this.#answered * 2;
    this.#native.answers[at] = tag;
    this.#native.answers[at + 1] = result;
    this.#answered++;
  }

  #commit(): void {
    const count = this.#answered;
    this.#answered = 0;
    this.#answeredBytes = 0;
    if (count > 0) this.#native.commit(count);
  }
}
