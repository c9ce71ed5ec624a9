/**
 * The command ring of a TCMU device: the kernel's commands, and our answers to them.
 *
 *     0  mailbox: version u16, flags u16, ring offset u32, ring bytes u32, cmd_head u32 (the kernel's)
 *    64  cmd_tail u32 (ours)
 *     …  the ring: entries of {length and, in its low three bits, kind u32, id u16, flags u8, flags u8}, and of a
 *        command: iovec count u32 at 8, offset of its CDB u64 at 24, iovecs {offset u64, length u64} from 48 on
 *
 *   1. cmd_head is read before, and cmd_tail written after, what they let the other side see: Atomics are stronger than
 *      the acquire and the release it takes.
 *   2. Answers need not come in the order of their commands. An answer goes into the oldest entry without one, which may
 *      have another command, and gets the id of the answered command; the length of the entry stays. So if a command is
 *      not answered as it is taken, its CDB and iovecs have to be copied.
 *   3. Every offset and length is checked before it is used: a malformed ring is an `Io` error.
 */
import { ErrorCodes, ObdError } from '../../errors.js';
import { CDB_BYTES } from './scsi-command.js';
import { type Sense, Senses, writeSense } from './scsi-sense.js';

const VERSION = 2;
const ANY_ORDER = 1;
const HEAD_AT = 12;
const TAIL_AT = 64;
const KIND_MASK = 7;
const KIND_PAD = 0;
const KIND_COMMAND = 1;
const UNKNOWN_KIND = 1;
const HEADER_BYTES = 8;
const IOVECS_AT = 48;
const IOVEC_BYTES = 16;
const COMMAND_BYTES_MIN = 112;
/** Places in the answer, which overlays the command. */
const STATUS_AT = 8;
const SENSE_AT = 16;
const STATUS_GOOD = 0;
const STATUS_CHECK_CONDITION = 2;

export class CommandRing {
  /** Mailbox and ring, in which the places below are. */
  readonly bytes: Buffer;
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #ringAt: number;
  readonly #ringBytes: number;
  /** From the start of the ring: the next command to take, and the next entry for an answer. */
  #next: number;
  #tail: number;

  /** The command that next() found. */
  id = 0;
  /** Where its CDB is, of which CDB_BYTES may be read. */
  cdbAt = 0;
  iovecsAt = 0;
  iovecCount = 0;

  /** @throws {ObdError} `Unsupported` if the kernel's ring is not of this kind. */
  constructor(ring: ArrayBuffer) {
    this.bytes = Buffer.from(ring);
    this.#words = new Int32Array(ring, 0, (TAIL_AT + 4) / 4);
    this.#view = new DataView(ring);
    const version = this.#view.getUint16(0, true);
    const flags = this.#view.getUint16(2, true);
    if (version !== VERSION || (flags & ANY_ORDER) === 0) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot use this kernel's TCMU: its ring has version ${version} and flags ${flags}, not version ${VERSION} with answers in any order`,
      );
    }
    this.#ringAt = this.#view.getUint32(4, true);
    this.#ringBytes = this.#view.getUint32(8, true);
    this.#tail = Atomics.load(this.#words, TAIL_AT / 4);
    this.#next = this.#tail;
  }

  /** Takes the next command and sets the fields above; false if the ring has none now. @throws {ObdError} `Io`. */
  next(): boolean {
    for (;;) {
      const head = Atomics.load(this.#words, HEAD_AT / 4);
      if (this.#next === head) return false;
      const at = this.#ringAt + this.#next;
      const kind = this.#kindAt(at);
      const length = this.#lengthAt(at);
      this.#next = (this.#next + length) % this.#ringBytes;
      if (kind === KIND_COMMAND) {
        this.#take(at, length);
        return true;
      }
      if (kind !== KIND_PAD) this.bytes[at + 7]! |= UNKNOWN_KIND;
    }
  }

  /** Answers a command. The kernel looks at it when it is told to. @throws {ObdError} `Io` */
  complete(id: number, sense: Sense): void {
    let at = this.#ringAt + this.#tail;
    while (this.#kindAt(at) !== KIND_COMMAND) at = this.#pass(at);
    this.#view.setUint16(at + 4, id, true);
    this.bytes[at + 7] = 0;
    if (sense === Senses.None) {
      this.bytes[at + STATUS_AT] = STATUS_GOOD;
    } else {
      this.bytes[at + STATUS_AT] = STATUS_CHECK_CONDITION;
      writeSense(this.bytes, at + SENSE_AT, sense);
    }
    this.#pass(at);
    Atomics.store(this.#words, TAIL_AT / 4, this.#tail);
  }

  /** How many bytes the iovecs of the current command name. */
  dataBytes(): number {
    let bytes = 0;
    for (let i = 0; i < this.iovecCount; i++) {
      bytes += this.#wideAt(this.iovecsAt + i * IOVEC_BYTES + 8);
    }
    return bytes;
  }

  /** The iovecs of the current command, to be kept. */
  copyIovecs(): Buffer {
    const end = this.iovecsAt + this.iovecCount * IOVEC_BYTES;
    return Buffer.from(this.bytes.subarray(this.iovecsAt, end));
  }

  #take(at: number, length: number): void {
    this.id = this.#view.getUint16(at + 4, true);
    this.iovecCount = this.#view.getUint32(at + 8, true);
    this.iovecsAt = at + IOVECS_AT;
    this.cdbAt = this.#wideAt(at + 24);
    const iovecsEnd = IOVECS_AT + this.iovecCount * IOVEC_BYTES;
    if (length < COMMAND_BYTES_MIN || iovecsEnd > length) throw this.#damaged(at);
    if (this.cdbAt + CDB_BYTES > this.bytes.length) throw this.#damaged(at);
  }

  /** Moves the tail past the entry at `at`, and returns where the next is. */
  #pass(at: number): number {
    this.#tail = (this.#tail + this.#lengthAt(at)) % this.#ringBytes;
    return this.#ringAt + this.#tail;
  }

  #kindAt(at: number): number {
    return this.#view.getUint32(at, true) & KIND_MASK;
  }

  #lengthAt(at: number): number {
    const length = (this.#view.getUint32(at, true) & ~KIND_MASK) >>> 0;
    const left = this.#ringAt + this.#ringBytes - at;
    if (length < HEADER_BYTES || length > left) throw this.#damaged(at);
    return length;
  }

  /** Inexact above 2^53, which is outside any map. */
  #wideAt(at: number): number {
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
  }

  #damaged(at: number): ObdError {
    return new ObdError(
      ErrorCodes.Io,
      `Cannot go on with a TCMU device: the entry at ${at} of its command ring makes no sense`,
      { offset: at },
    );
  }
}
