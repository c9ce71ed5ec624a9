/**
 * The kernel's side of a TCMU device, for tests without one: a mailbox, a small ring and a data area. It puts commands
 * into the ring in pieces of odd sizes, and returns the answers. It keeps the kernel's rules: an entry does not wrap,
 * its data stay until it is answered, and answers are read when the server rings.
 */
import assert from 'node:assert/strict';
import type { UioDevice } from '../../src/blockdev/tcmu/uio-device.js';

const RING_AT = 128;
const TAIL_WORD = 16;
const HEAD_WORD = 3;
const COMMAND_BYTES_MIN = 112;

export interface Answer {
  readonly status: number;
  /** Sense key, additional code and its qualifier, a byte each; 0 if it is good. */
  readonly sense: number;
  /** As many bytes as were requested; bytes that were not written are 0xee. */
  readonly data: Buffer;
}

interface Pending {
  readonly pieces: readonly { readonly at: number; readonly length: number }[];
  resolve(answer: Answer): void;
}

export class TcmuKernel implements UioDevice {
  readonly ring: ArrayBuffer;
  kicks = 0;
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  readonly #ringBytes: number;
  readonly #area: Buffer;
  readonly #pieceBytes: number;
  readonly #pending = new Map<number, Pending>();
  #head = 0;
  #cleaned = 0;
  #areaNext = 0;
  #id = 0;

  /** @param pieceBytes - Of each iovec. */
  constructor(ringBytes: number, areaBytes: number, pieceBytes: number) {
    this.ring = new ArrayBuffer(RING_AT + ringBytes);
    this.#bytes = Buffer.from(this.ring);
    this.#words = new Int32Array(this.ring);
    this.#ringBytes = ringBytes;
    this.#area = Buffer.alloc(areaBytes, 0xee);
    this.#pieceBytes = pieceBytes;
    this.#bytes.writeUInt16LE(2, 0);
    this.#bytes.writeUInt16LE(3, 2);
    this.#bytes.writeUInt32LE(RING_AT, 4);
    this.#bytes.writeUInt32LE(ringBytes, 8);
  }

  get unanswered(): number {
    return this.#pending.size;
  }

  /**
   * Puts a command into the ring; returns undefined if there is no room for it now.
   * @param data - The data to write, or the number of bytes to read.
   */
  queue(cdb: readonly number[], data: Buffer | number = 0): Promise<Answer> | undefined {
    const bytes = typeof data === 'number' ? data : data.length;
    const count = Math.ceil(bytes / this.#pieceBytes);
    const length = Math.max(COMMAND_BYTES_MIN, (48 + 16 * count + 16 + 7) & ~7);
    if (!this.#makeRoom(length)) return undefined;
    const pieces = Array.from({ length: count }, (_, i) => {
      const piece = Math.min(this.#pieceBytes, bytes - i * this.#pieceBytes);
      return { at: this.#place(piece), length: piece };
    });
    let from = 0;
    for (const piece of pieces) {
      const target = this.#area.subarray(piece.at, piece.at + piece.length);
      if (typeof data === 'number') target.fill(0xee);
      else from += data.copy(target, 0, from);
    }
    // The least free number but not soon again.
    const id = this.#id++ & 0xffff;
    const at = RING_AT + this.#head;
    this.#bytes.fill(0, at, at + length);
    this.#bytes.writeUInt32LE(length | 1, at);
    this.#bytes.writeUInt16LE(id, at + 4);
    this.#bytes.writeUInt32LE(count, at + 8);
    const cdbAt = at + 48 + 16 * count;
    this.#bytes.writeUInt32LE(cdbAt, at + 24);
    for (const [i, piece] of pieces.entries()) {
      this.#bytes.writeUInt32LE(this.ring.byteLength + piece.at, at + 48 + 16 * i);
      this.#bytes.writeUInt32LE(piece.length, at + 48 + 16 * i + 8);
    }
    this.#bytes.set(cdb, cdbAt);
    this.#advance(length);
    return new Promise((resolve) => this.#pending.set(id, { pieces, resolve }));
  }

  /** Puts an invalid entry into the ring. */
  queueOther(kind: number, length: number): void {
    assert.ok(this.#makeRoom(length));
    this.#bytes.writeUInt32LE(length | kind, RING_AT + this.#head);
    this.#advance(length);
  }

  kick(): void {
    this.kicks++;
    while (this.#cleaned !== Atomics.load(this.#words, TAIL_WORD)) {
      const at = RING_AT + this.#cleaned;
      const length = this.#bytes.readUInt32LE(at) & ~7;
      if ((this.#bytes.readUInt32LE(at) & 7) === 1) this.#take(at);
      this.#cleaned = (this.#cleaned + length) % this.#ringBytes;
    }
  }

  scatter(
    iovecs: Uint8Array,
    at: number,
    count: number,
    bytes: Uint8Array,
    from: number,
    length: number,
  ): boolean {
    return this.#copy(iovecs, at, count, length, (part, done) =>
      part.set(bytes.subarray(from + done, from + done + part.length)),
    );
  }

  gather(
    iovecs: Uint8Array,
    at: number,
    count: number,
    bytes: Uint8Array,
    from: number,
    length: number,
  ): boolean {
    return this.#copy(iovecs, at, count, length, (part, done) => bytes.set(part, from + done));
  }

  close(): void {}

  #copy(
    iovecs: Uint8Array,
    at: number,
    count: number,
    length: number,
    copy: (part: Uint8Array, done: number) => void,
  ): boolean {
    const view = new DataView(iovecs.buffer, iovecs.byteOffset + at, count * 16);
    let named = 0;
    for (let i = 0; i < count; i++) named += view.getUint32(i * 16 + 8, true);
    if (named < length) return false;
    let done = 0;
    for (let i = 0; done < length; i++) {
      const start = view.getUint32(i * 16, true) - this.ring.byteLength;
      const part = Math.min(length - done, view.getUint32(i * 16 + 8, true));
      assert.ok(start >= 0 && start + part <= this.#area.length, 'a copy outside the data area');
      copy(this.#area.subarray(start, start + part), done);
      done += part;
    }
    return true;
  }

  #take(at: number): void {
    const id = this.#bytes.readUInt16LE(at + 4);
    const pending = this.#pending.get(id);
    assert.ok(pending !== undefined, `an answer to ${id}, which waits for none`);
    assert.equal(this.#bytes[at + 7], 0);
    this.#pending.delete(id);
    const parts = pending.pieces.map((piece) =>
      Buffer.from(this.#area.subarray(piece.at, piece.at + piece.length)),
    );
    const status = this.#bytes[at + 8]!;
    const sense = this.#bytes.subarray(at + 16, at + 34);
    const code = status === 0 ? 0 : (sense[2]! << 16) | (sense[12]! << 8) | sense[13]!;
    pending.resolve({ status, sense: code, data: Buffer.concat(parts) });
  }

  /** Pads to the end where the entry would wrap. */
  #makeRoom(length: number): boolean {
    const left = this.#ringBytes - this.#head;
    const used = (this.#head - this.#cleaned + this.#ringBytes) % this.#ringBytes;
    const wraps = length > left;
    if (used + length + (wraps ? left : 0) >= this.#ringBytes) return false;
    if (wraps) {
      this.#bytes.writeUInt32LE(left, RING_AT + this.#head);
      this.#advance(left);
    }
    return true;
  }

  #advance(length: number): void {
    this.#head = (this.#head + length) % this.#ringBytes;
    Atomics.store(this.#words, HEAD_WORD, this.#head);
  }

  /** Places in the data area are used in turn; it is large enough that none is used again before it is free. */
  #place(length: number): number {
    if (this.#areaNext + length > this.#area.length) this.#areaNext = 0;
    const at = this.#areaNext;
    this.#areaNext += length;
    return at;
  }
}
