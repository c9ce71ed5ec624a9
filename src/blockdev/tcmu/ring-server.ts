/**
 * Answers the commands in the ring of one device from its disk, which may be a WritableDisk.
 *
 *   1. All commands of one wake-up are taken, and what can be answered at once is, with one kick at the end: reads whose
 *      bytes are local, decoded into a buffer that the thread's devices share and copied once, to where the kernel
 *      wants them. No promise, and no allocation but one view per read.
 *   2. A read that is not local, or fails a check, is loaded concurrently and answered when it is done, out of order. If
 *      it fails, that read is answered with an error and reported once. So are changes.
 *   3. The device's data area bounds the commands in flight: the kernel holds the rest back.
 *   4. Changes answered before a flush arrived are done before the disk is asked to flush.
 */
import { constants } from 'node:os';
import { ObdError } from '../../errors.js';
import { DEVICE_BLOCK_BYTES } from '../../io/block-sizes.js';
import { DiskRequests, type OnDone, type ReportFailure } from '../disk-requests.js';
import type { VirtualDisk, WritableDisk } from '../virtual-disk.js';
import { CommandRing } from './command-ring.js';
import { blockCountOf, blockOf, CDB_BYTES, Opcodes } from './scsi-command.js';
import {
  checkModeSelect,
  dataIn,
  type ScsiUnit,
  TRANSFER_BLOCKS_MAX,
  unmapRanges,
  WRITE_SAME_BLOCKS_MAX,
} from './scsi-data.js';
import { type Sense, Senses } from './scsi-sense.js';
import type { UioDevice } from './uio-device.js';

/** The largest READ: the size of the buffer that a thread's devices share. */
export const TRANSFER_BYTES_MAX = TRANSFER_BLOCKS_MAX * DEVICE_BLOCK_BYTES;
/** Looks into the ring before the loop's other handles have their turn. */
const TURNS_MAX = 8;
/** FUA, a bit of CDB byte 1 that 6-byte CDBs lack (SBC-3): flush before the answer. */
const FUA = 0x08;
/** Bits of CDB byte 1 of WRITE SAME: UNMAP, blocks of zeroes may be unmapped; NDOB, write zeroes without data (16-byte CDB). */
const MAY_UNMAP = 0x08;
const NO_DATA = 0x01;

export class RingServer {
  readonly #uio: UioDevice;
  readonly #ring: CommandRing;
  readonly #requests: DiskRequests;
  readonly #unit: ScsiUnit;
  readonly #shared: Buffer;
  readonly #report: ReportFailure;
  readonly #cdb = Buffer.alloc(CDB_BYTES);
  /** There are answers that the kernel has not been told of. */
  #answered = false;
  #stopped = false;

  /**
   * @param shared - TRANSFER_BYTES_MAX that are used within a tick only.
   * @throws {ObdError} `Unsupported` if this kernel's ring is of another kind.
   */
  constructor(
    uio: UioDevice,
    disk: VirtualDisk,
    serial: string,
    shared: Buffer,
    report: ReportFailure,
  ) {
    this.#uio = uio;
    this.#ring = new CommandRing(uio.ring);
    this.#requests = new DiskRequests(disk, report);
    const blocks = disk.sizeBytes / DEVICE_BLOCK_BYTES;
    this.#unit = { blocks, writable: this.#requests.writable !== undefined, serial };
    this.#shared = shared;
    this.#report = report;
  }

  /** Takes what is in the ring. @param failure - An errno: there is no device any more. */
  wake(failure = 0): void {
    if (failure !== 0) void this.stop();
    this.#whileSound(() => {
      for (let turn = 0; turn < TURNS_MAX && !this.#stopped; turn++) {
        while (this.#ring.next()) this.#answer();
        if (!this.#answered) return;
        this.#kick();
      }
    });
  }

  /**
   * Takes no more commands. Resolves when each taken command is answered or has failed, and the disk is not used any
   * more. Idempotent.
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#requests.stop();
  }

  /** Stops serving when the kernel's ring is malformed: then no command in it can be answered. */
  #whileSound(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof ObdError)) throw error;
      void this.stop();
      this.#report(error, 0, 0);
    }
  }

  #kick(): void {
    this.#answered = false;
    this.#uio.kick();
  }

  #complete(id: number, sense: Sense): void {
    this.#ring.complete(id, sense);
    this.#answered = true;
  }

  #answer(): void {
    const ring = this.#ring;
    const cdb = this.#cdb;
    cdb.set(ring.bytes.subarray(ring.cdbAt, ring.cdbAt + CDB_BYTES));
    switch (cdb[0]) {
      case Opcodes.Read6:
      case Opcodes.Read10:
      case Opcodes.Read12:
      case Opcodes.Read16:
        this.#read(ring.id, blockOf(cdb), blockCountOf(cdb));
        return;
      case Opcodes.TestUnitReady:
      case Opcodes.StartStopUnit:
        this.#complete(ring.id, Senses.None);
        return;
      case Opcodes.Verify10:
      case Opcodes.Verify12:
      case Opcodes.Verify16:
        // BYTCHK: the command would bring bytes to compare with.
        if ((cdb[1]! & 0x06) !== 0) this.#complete(ring.id, Senses.InvalidField);
        else this.#complete(ring.id, this.#rangeSense(blockOf(cdb), blockCountOf(cdb)));
        return;
      case Opcodes.ModeSelect6:
      case Opcodes.ModeSelect10:
        this.#complete(ring.id, this.#modeSelect());
        return;
      case Opcodes.Write6:
      case Opcodes.Write10:
      case Opcodes.Write12:
      case Opcodes.Write16:
      case Opcodes.SynchronizeCache10:
      case Opcodes.SynchronizeCache16:
      case Opcodes.WriteSame10:
      case Opcodes.WriteSame16:
      case Opcodes.Unmap:
        this.#change(ring.id, cdb);
        return;
      default:
        this.#complete(ring.id, this.#dataIn());
    }
  }

  /** Answers now if the bytes are local, or starts loading them. */
  #read(id: number, first: number, count: number): void {
    const sense =
      count > TRANSFER_BLOCKS_MAX ? Senses.InvalidField : this.#rangeSense(first, count);
    if (sense !== Senses.None || count === 0) {
      this.#complete(id, sense);
      return;
    }
    const offset = first * DEVICE_BLOCK_BYTES;
    const length = count * DEVICE_BLOCK_BYTES;
    const { bytes, iovecsAt, iovecCount } = this.#ring;
    if (this.#requests.tryRead(this.#shared.subarray(0, length), offset)) {
      const whole = this.#uio.scatter(bytes, iovecsAt, iovecCount, this.#shared, 0, length);
      this.#complete(id, whole ? Senses.None : Senses.InvalidField);
      return;
    }
    const iovecs = this.#ring.copyIovecs();
    const target = Buffer.allocUnsafeSlow(length);
    this.#requests.read(target, offset, (errno) => {
      const isRead = errno === 0;
      const isWhole = isRead && this.#uio.scatter(iovecs, 0, iovecCount, target, 0, length);
      const failure = isRead ? Senses.InvalidField : Senses.ReadFailed;
      this.#finish(id, isWhole ? Senses.None : failure);
    });
  }

  #dataIn(): Sense {
    const data = dataIn(this.#unit, this.#cdb);
    if (typeof data === 'number') return data;
    // The kernel passes on as many bytes as were requested: zeroes replace the buffer's earlier content behind the answer.
    const { bytes, iovecsAt, iovecCount } = this.#ring;
    const length = Math.min(this.#ring.dataBytes(), TRANSFER_BYTES_MAX);
    data.copy(this.#shared.fill(0, 0, length), 0, 0, length);
    const whole = this.#uio.scatter(bytes, iovecsAt, iovecCount, this.#shared, 0, length);
    return whole ? Senses.None : Senses.InvalidField;
  }

  #modeSelect(): Sense {
    const cdb = this.#cdb;
    const list = this.#gather(cdb[0] === Opcodes.ModeSelect6 ? cdb[4]! : cdb.readUInt16BE(7));
    return list === undefined ? Senses.InvalidField : checkModeSelect(this.#unit, cdb, list);
  }

  #change(id: number, cdb: Buffer): void {
    const isReadOnly = this.#requests.writable === undefined;
    const sync = cdb[0] === Opcodes.SynchronizeCache10 || cdb[0] === Opcodes.SynchronizeCache16;
    if (isReadOnly) this.#complete(id, sync ? Senses.None : Senses.WriteProtected);
    else if (sync) this.#requests.flush(this.#answering(id));
    else if (cdb[0] === Opcodes.Unmap) this.#unmap(id);
    else this.#write(id, cdb[0] === Opcodes.WriteSame10 || cdb[0] === Opcodes.WriteSame16);
  }

  #write(id: number, same: boolean): void {
    const cdb = this.#cdb;
    const first = blockOf(cdb);
    const count = blockCountOf(cdb);
    const tooMany = count > (same ? WRITE_SAME_BLOCKS_MAX : TRANSFER_BLOCKS_MAX);
    const sense = tooMany ? Senses.InvalidField : this.#rangeSense(first, count);
    if (sense !== Senses.None || count === 0) {
      this.#complete(id, sense !== Senses.None || !same ? sense : Senses.InvalidField);
      return;
    }
    const offset = first * DEVICE_BLOCK_BYTES;
    const length = count * DEVICE_BLOCK_BYTES;
    const flags = cdb[1]!;
    const zeroes = same && cdb[0] === Opcodes.WriteSame16 && (flags & NO_DATA) !== 0;
    const data = zeroes
      ? Buffer.alloc(DEVICE_BLOCK_BYTES)
      : this.#gather(same ? DEVICE_BLOCK_BYTES : length);
    if (data === undefined) this.#complete(id, Senses.InvalidField);
    else if (!same) {
      const fua = cdb[0] !== Opcodes.Write6 && (flags & FUA) !== 0;
      this.#requests.write(data, offset, fua, this.#answering(id));
    } else if (data.every((byte) => byte === 0)) {
      const mayUnmap = (flags & MAY_UNMAP) !== 0;
      this.#requests.zero(offset, length, mayUnmap, false, this.#answering(id));
    } else {
      const work = (disk: WritableDisk) => writeRepeatedly(disk, data, offset, length);
      this.#requests.change('write', offset, length, work, this.#answering(id));
    }
  }

  #unmap(id: number): void {
    const list = this.#gather(this.#cdb.readUInt16BE(7));
    const ranges = list === undefined ? Senses.InvalidField : unmapRanges(this.#unit, list);
    if (typeof ranges === 'number') {
      this.#complete(id, ranges);
      return;
    }
    const offset = (ranges[0]?.first ?? 0) * DEVICE_BLOCK_BYTES;
    const length = (ranges[0]?.count ?? 0) * DEVICE_BLOCK_BYTES;
    const work = async (disk: WritableDisk): Promise<void> => {
      for (const { first, count } of ranges) {
        await disk.zero(first * DEVICE_BLOCK_BYTES, count * DEVICE_BLOCK_BYTES, true);
      }
    };
    this.#requests.change('zero', offset, length, work, this.#answering(id));
  }

  /** Data that came with the command, to be kept; undefined if it brought less. */
  #gather(length: number): Buffer | undefined {
    const { bytes, iovecsAt, iovecCount } = this.#ring;
    const data = Buffer.allocUnsafeSlow(length);
    return this.#uio.gather(bytes, iovecsAt, iovecCount, data, 0, length) ? data : undefined;
  }

  #rangeSense(first: number, count: number): Sense {
    return first + count > this.#unit.blocks ? Senses.OutOfRange : Senses.None;
  }

  /** Answers a change when it is done. */
  #answering(id: number): OnDone {
    return (errno) => {
      const failure = errno === constants.errno.ENOSPC ? Senses.NoSpace : Senses.WriteFailed;
      this.#finish(id, errno === 0 ? Senses.None : failure);
    };
  }

  /** Answers a command that was in flight. */
  #finish(id: number, sense: Sense): void {
    // The next server of the device may succeed: the kernel repeats what has no answer.
    if (this.#stopped && sense !== Senses.None) return;
    this.#whileSound(() => {
      this.#complete(id, sense);
      this.#kick();
    });
  }
}

async function writeRepeatedly(
  disk: WritableDisk,
  block: Buffer,
  offset: number,
  length: number,
): Promise<void> {
  const blocks = Buffer.alloc(Math.min(length, TRANSFER_BYTES_MAX), block);
  for (let at = 0; at < length; at += blocks.length) {
    await disk.write(blocks.subarray(0, Math.min(blocks.length, length - at)), offset + at);
  }
}
