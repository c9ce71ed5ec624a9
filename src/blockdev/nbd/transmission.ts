/**
 * The second half of an NBD connection: requests in, replies out, for one disk, which may be a WritableDisk. It
 * needs a stream that is past the handshake, so it serves the kernel's NBD client over a socket pair as well.
 *
 *   1. However the byte stream is cut, the answers are the same.
 *   2. All requests of one arrival whose bytes are local are answered in that tick, in one write: the disk
 *      decodes straight into the buffer that is written. No promise, and no allocation but one view per read.
 *   3. A read that is not local, or fails a check, is loaded concurrently and answered when it is done, out of order;
 *      other requests do not wait for it. If it fails, that read is answered with EIO and reported once.
 *   4. A client that does not take its replies, or has too much in flight, is not read from until that changes.
 *      It holds at most HELD_BUFFERS_MAX, LOADS_MAX and LOADING_BYTES_MAX, and one request more. Reads beyond the load
 *      limits are queued, up to QUEUED_MAX and without a buffer: local ones do not wait for them.
 *   5. Malformed bytes end the connection; a request that cannot be granted is only refused.
 *   6. Writes, trims and flushes run concurrently too. Changes answered before a flush arrived are done before the disk
 *      is asked to flush, so the flush covers them; a change with FUA is answered after a separate flush.
 */
import type { Duplex } from 'node:stream';
import { DiskRequests, type OnDone, type ReportFailure } from '../disk-requests.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { encodeExtents } from './block-status.js';
import {
  ALLOCATION_CONTEXT_ID,
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  Chunks,
  CommandFlags,
  Commands,
  NbdErrors,
  type NegotiatedOptions,
  READ_BYTES_MAX,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_HEADER_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './protocol.js';
import { REPLY_BUFFER_BYTES, type ReplyBuffers } from './reply-buffers.js';

/** Replies that the kernel has not taken yet, and in how many buffers. More would only wait longer. */
const QUEUED_BYTES_MAX = 1 << 20;
const HELD_BUFFERS_MAX = 4;
/** Reads being loaded, and writes: what the kernel's NBD client has in flight on one connection. */
const LOADS_MAX = 128;
/** Enough to fetch 80 MB/s at 50 ms; nbdcopy asks for four connections of 16 MiB, which would stay resident. */
const LOADING_BYTES_MAX = 4 << 20;
/** Reads that wait to be loaded: as many requests as this project's own NBD client has at a time. */
const QUEUED_MAX = 192;
const EMPTY = Buffer.alloc(0);

export interface TransmissionOptions extends NegotiatedOptions {
  readonly disk: VirtualDisk;
  readonly buffers: ReplyBuffers;
  readonly report: ReportFailure;
}

/** Bytes on the disk that a request is about, and the cookie to answer. */
interface Target {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
}

/** A read that waits to be loaded; its deadline counts from its arrival. */
interface Queued extends Target {
  readonly arrivedMs: number;
}

/** A WRITE whose data are arriving. */
interface Arriving extends Target {
  readonly fua: boolean;
  readonly data: Buffer;
  filled: number;
}

export class Transmission {
  readonly #stream: Duplex;
  readonly #options: TransmissionOptions;
  readonly #disk: VirtualDisk;
  readonly #requests: DiskRequests;
  readonly #structured: boolean;
  /** The header before the data in the reply to a READ. */
  readonly #headerBytes: number;
  /** Bytes of an incomplete request, or of requests that have to wait. */
  #rest: Buffer = EMPTY;
  #waiting = false;
  /** Data of a refused WRITE still to be skipped, and the answer to send then. */
  #skipBytes = 0;
  #skipAnswer: readonly [cookieHigh: number, cookieLow: number, error: number] = [0, 0, 0];
  #arriving: Arriving | undefined;
  /** Replies of this tick. */
  #out: Buffer | undefined;
  #outBytes = 0;
  /** Buffers written but not taken yet, in order: pooled buffers, and undefined for others. */
  readonly #written: (Buffer | undefined)[] = [];
  #heldBuffers = 0;
  readonly #onWritten = () => this.#afterWrite();
  readonly #queued: Queued[] = [];
  /** The client has disconnected: no further request is taken. */
  #leaving = false;

  /** Starts serving; `rest` is what has been read from the stream already. */
  constructor(stream: Duplex, options: TransmissionOptions, rest: Buffer) {
    this.#stream = stream;
    this.#options = options;
    this.#disk = options.disk;
    this.#requests = new DiskRequests(options.disk, options.report);
    this.#structured = options.structured;
    this.#headerBytes = options.structured ? CHUNK_HEADER_BYTES + 8 : SIMPLE_HEADER_BYTES;
    stream.on('data', (bytes: Buffer) => this.#take(bytes));
    stream.once('close', () => void this.#requests.stop());
    if (rest.length > 0) this.#take(rest);
  }

  /** Ends the connection. Resolves when it no longer uses the disk. Idempotent. */
  async end(): Promise<void> {
    this.#stream.destroy();
    await this.#requests.stop();
  }

  #take(arrived: Buffer): void {
    const bytes = this.#rest.length === 0 ? arrived : Buffer.concat([this.#rest, arrived]);
    let at = 0;
    while (!this.#stream.destroyed && !this.#leaving) {
      if (this.#skipBytes > 0) {
        const skipped = Math.min(this.#skipBytes, bytes.length - at);
        this.#skipBytes -= skipped;
        at += skipped;
        if (this.#skipBytes > 0) break;
        this.#refuse(...this.#skipAnswer);
      }
      if (this.#arriving !== undefined) {
        at += this.#fill(this.#arriving, bytes, at);
        if (this.#arriving !== undefined) break;
      }
      if (bytes.length - at < REQUEST_BYTES) break;
      if (this.#mustWait(bytes, at)) {
        this.#waiting = true;
        this.#stream.pause();
        break;
      }
      this.#answer(bytes, at);
      at += REQUEST_BYTES;
    }
    this.#rest = at === bytes.length || this.#leaving ? EMPTY : bytes.subarray(at);
    this.#flush();
  }

  /** Whether the request at `at` cannot be taken now. */
  #mustWait(bytes: Buffer, at: number): boolean {
    const isRead = bytes.readUInt16BE(at + 6) === Commands.Read;
    return (
      this.#stream.writableLength >= QUEUED_BYTES_MAX ||
      this.#heldBuffers >= HELD_BUFFERS_MAX ||
      (isRead ? this.#queued.length >= QUEUED_MAX : this.#isLoadingMost())
    );
  }

  #isLoadingMost(): boolean {
    return this.#requests.inFlight >= LOADS_MAX || this.#requests.heldBytes >= LOADING_BYTES_MAX;
  }

  /** Resumes with the waiting bytes, if they need not wait any longer. */
  #resumeIfReady(): void {
    if (!this.#waiting || this.#stream.destroyed || this.#mustWait(this.#rest, 0)) return;
    this.#waiting = false;
    const bytes = this.#rest;
    this.#rest = EMPTY;
    this.#take(bytes);
    if (!this.#waiting) this.#stream.resume();
  }

  #answer(bytes: Buffer, at: number): void {
    if (bytes.readUInt32BE(at) !== REQUEST_MAGIC) {
      this.#stream.destroy();
      return;
    }
    const command = bytes.readUInt16BE(at + 6);
    const cookieHigh = bytes.readUInt32BE(at + 8);
    const cookieLow = bytes.readUInt32BE(at + 12);
    // Inexact above 2^53, where no disk ends.
    const offset = bytes.readUInt32BE(at + 16) * 2 ** 32 + bytes.readUInt32BE(at + 20);
    const length = bytes.readUInt32BE(at + 24);
    switch (command) {
      case Commands.Read:
        if (length === 0 || length > READ_BYTES_MAX || offset + length > this.#disk.sizeBytes) {
          this.#refuse(cookieHigh, cookieLow, NbdErrors.Invalid);
        } else if (this.#headerBytes + length <= REPLY_BUFFER_BYTES) {
          this.#read(cookieHigh, cookieLow, offset, length);
        } else {
          this.#loadInTurn(cookieHigh, cookieLow, offset, length);
        }
        return;
      case Commands.Disconnect:
        this.#disconnect();
        return;
      case Commands.Write:
      case Commands.Flush:
      case Commands.Trim:
      case Commands.WriteZeroes:
        this.#answerChange(command, bytes.readUInt16BE(at + 4), {
          cookieHigh,
          cookieLow,
          offset,
          length,
        });
        return;
      case Commands.BlockStatus: {
        const one = (bytes.readUInt16BE(at + 4) & CommandFlags.RequestOne) !== 0;
        this.#blockStatus(cookieHigh, cookieLow, offset, length, one);
        return;
      }
      default:
        this.#refuse(cookieHigh, cookieLow, NbdErrors.Invalid);
    }
  }

  #answerChange(command: number, flags: number, target: Target): void {
    const { cookieHigh, cookieLow, offset, length } = target;
    const isReadOnly = this.#requests.writable === undefined;
    const fua = (flags & CommandFlags.Fua) !== 0;
    if (command === Commands.Flush) {
      if (isReadOnly) this.#done(cookieHigh, cookieLow);
      else this.#requests.flush(this.#answering(target));
      return;
    }
    const refusal = this.#refusalOf(command, offset, length);
    if (command === Commands.Write) {
      if (refusal === 0) {
        this.#arriving = { ...target, fua, data: Buffer.alloc(length), filled: 0 };
      } else {
        this.#skipBytes = length;
        this.#skipAnswer = [cookieHigh, cookieLow, refusal];
        if (length === 0) this.#refuse(cookieHigh, cookieLow, refusal);
      }
    } else if (refusal !== 0) {
      this.#refuse(cookieHigh, cookieLow, refusal);
    } else {
      const mayUnmap = command === Commands.Trim || (flags & CommandFlags.NoHole) === 0;
      this.#requests.zero(offset, length, mayUnmap, fua, this.#answering(target));
    }
  }

  /** Why bytes cannot be changed as asked, as an error of the protocol; 0 if they can. */
  #refusalOf(command: number, offset: number, length: number): number {
    if (this.#requests.writable === undefined) return NbdErrors.NotPermitted;
    if (length === 0 || (command === Commands.Write && length > READ_BYTES_MAX)) {
      return NbdErrors.Invalid;
    }
    if (offset + length <= this.#disk.sizeBytes) return 0;
    return command === Commands.Trim ? NbdErrors.Invalid : NbdErrors.NoSpace;
  }

  /** Takes data of a WRITE, and starts it when they are whole. Returns how many bytes it took. */
  #fill(arriving: Arriving, bytes: Buffer, at: number): number {
    const taken = bytes.copy(arriving.data, arriving.filled, at);
    arriving.filled += taken;
    if (arriving.filled === arriving.length) {
      this.#arriving = undefined;
      const { data, offset, fua } = arriving;
      this.#requests.write(data, offset, fua, this.#answering(arriving));
    }
    return taken;
  }

  /** Answers a change when it is done. */
  #answering({ cookieHigh, cookieLow }: Target): OnDone {
    return (errno) => {
      if (this.#stream.destroyed) return;
      if (errno === 0) this.#done(cookieHigh, cookieLow);
      // The protocol's error numbers are Linux's.
      else this.#refuse(cookieHigh, cookieLow, errno);
      this.#flush();
      this.#settled();
    };
  }

  /** Answers now if the bytes are local, or starts loading them. */
  #read(cookieHigh: number, cookieLow: number, offset: number, length: number): void {
    const start = this.#room(this.#headerBytes + length);
    const out = this.#out!;
    const target = new Uint8Array(out.buffer, out.byteOffset + start + this.#headerBytes, length);
    if (this.#requests.tryRead(target, offset)) {
      this.#writeReadHeader(out, start, cookieHigh, cookieLow, offset, length);
    } else {
      this.#outBytes = start;
      this.#loadInTurn(cookieHigh, cookieLow, offset, length);
    }
  }

  #loadInTurn(cookieHigh: number, cookieLow: number, offset: number, length: number): void {
    const read = { cookieHigh, cookieLow, offset, length, arrivedMs: performance.now() };
    if (this.#isLoadingMost()) this.#queued.push(read);
    else this.#load(read);
  }

  /** Answers when the bytes are loaded, or when the load has failed. */
  #load({ cookieHigh, cookieLow, offset, length, arrivedMs }: Queued): void {
    const reply = Buffer.alloc(this.#headerBytes + length);
    const done = (errno: number): void => {
      if (this.#stream.destroyed) return;
      if (errno === 0) {
        this.#writeReadHeader(reply, 0, cookieHigh, cookieLow, offset, length);
        this.#write(reply, undefined);
      } else {
        this.#refuse(cookieHigh, cookieLow, errno);
        this.#flush();
      }
      this.#settled();
    };
    this.#requests.read(reply.subarray(this.#headerBytes), offset, done, arrivedMs);
  }

  /** A request that was in flight is answered: others may start. */
  #settled(): void {
    while (this.#queued.length > 0 && !this.#isLoadingMost()) this.#load(this.#queued.shift()!);
    this.#resumeIfReady();
    if (this.#leaving && this.#requests.inFlight === 0) this.#stream.end();
  }

  #blockStatus(
    cookieHigh: number,
    cookieLow: number,
    offset: number,
    length: number,
    one: boolean,
  ): void {
    if (!this.#options.allocation || length === 0 || offset + length > this.#disk.sizeBytes) {
      this.#refuse(cookieHigh, cookieLow, NbdErrors.Invalid);
      return;
    }
    const extents = encodeExtents(this.#disk, offset, length, one);
    const payloadBytes = 4 + extents.length;
    const at = this.#room(CHUNK_HEADER_BYTES + payloadBytes);
    const out = this.#out!;
    writeChunkHeader(out, at, Chunks.BlockStatus, cookieHigh, cookieLow, payloadBytes);
    out.writeUInt32BE(ALLOCATION_CONTEXT_ID, at + CHUNK_HEADER_BYTES);
    out.set(extents, at + CHUNK_HEADER_BYTES + 4);
  }

  /** Pending loads are still answered, as the protocol demands; then the connection ends. */
  #disconnect(): void {
    this.#flush();
    this.#leaving = true;
    if (this.#requests.inFlight === 0) this.#stream.end();
  }

  #refuse(cookieHigh: number, cookieLow: number, error: number): void {
    if (!this.#structured) {
      const at = this.#room(SIMPLE_HEADER_BYTES);
      writeSimpleHeader(this.#out!, at, cookieHigh, cookieLow, error);
      return;
    }
    const at = this.#room(CHUNK_HEADER_BYTES + 6);
    const out = this.#out!;
    writeChunkHeader(out, at, Chunks.Error, cookieHigh, cookieLow, 6);
    out.writeUInt32BE(error, at + CHUNK_HEADER_BYTES);
    out.writeUInt16BE(0, at + CHUNK_HEADER_BYTES + 4);
  }

  #writeReadHeader(
    target: Buffer,
    at: number,
    cookieHigh: number,
    cookieLow: number,
    offset: number,
    length: number,
  ): void {
    if (!this.#structured) {
      writeSimpleHeader(target, at, cookieHigh, cookieLow, 0);
      return;
    }
    writeChunkHeader(target, at, Chunks.OffsetData, cookieHigh, cookieLow, 8 + length);
    target.writeUInt32BE(Math.floor(offset / 2 ** 32), at + CHUNK_HEADER_BYTES);
    target.writeUInt32BE(offset % 2 ** 32, at + CHUNK_HEADER_BYTES + 4);
  }

  /** The whole reply to a request that returns no data. */
  #done(cookieHigh: number, cookieLow: number): void {
    const at = this.#room(SIMPLE_HEADER_BYTES);
    writeSimpleHeader(this.#out!, at, cookieHigh, cookieLow, 0);
  }

  /** Reserves bytes of #out, at the position returned. */
  #room(bytes: number): number {
    if (this.#outBytes + bytes > REPLY_BUFFER_BYTES) this.#flush();
    this.#out ??= this.#options.buffers.take();
    const at = this.#outBytes;
    this.#outBytes += bytes;
    return at;
  }

  #flush(): void {
    const out = this.#out;
    if (out === undefined || this.#outBytes === 0) return;
    const bytes = out.subarray(0, this.#outBytes);
    this.#out = undefined;
    this.#outBytes = 0;
    this.#write(bytes, out);
  }

  #write(bytes: Buffer, pooled: Buffer | undefined): void {
    this.#stream.write(bytes, this.#onWritten);
    const taken = this.#stream.writableLength === 0;
    this.#written.push(taken ? undefined : pooled);
    if (pooled === undefined) return;
    // The next buffer to be used, while it is still in the CPU's cache.
    if (taken) this.#options.buffers.release(pooled);
    else this.#heldBuffers++;
  }

  #afterWrite(): void {
    const pooled = this.#written.shift();
    if (pooled !== undefined) {
      this.#heldBuffers--;
      this.#options.buffers.release(pooled);
    }
    this.#resumeIfReady();
  }
}

function writeSimpleHeader(
  target: Buffer,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  error: number,
): void {
  target.writeUInt32BE(SIMPLE_REPLY_MAGIC, at);
  target.writeUInt32BE(error, at + 4);
  target.writeUInt32BE(cookieHigh, at + 8);
  target.writeUInt32BE(cookieLow, at + 12);
}

/** Writes the header of a chunk that is the whole reply. */
function writeChunkHeader(
  target: Buffer,
  at: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  payloadBytes: number,
): void {
  target.writeUInt32BE(STRUCTURED_REPLY_MAGIC, at);
  target.writeUInt16BE(CHUNK_FLAG_DONE, at + 4);
  target.writeUInt16BE(type, at + 6);
  target.writeUInt32BE(cookieHigh, at + 8);
  target.writeUInt32BE(cookieLow, at + 12);
  target.writeUInt32BE(payloadBytes, at + 16);
}
