/**
 * Why a SCSI command fails, as a number: sense key, additional code and its qualifier in a byte each; 0 is success.
 * The comments say what Linux, the reader, makes of each number.
 */
export const Senses = {
  None: 0x000000,
  /** EIO at once: this is the number that Linux does not retry. */
  ReadFailed: 0x031100,
  WriteFailed: 0x030c00,
  UnknownCommand: 0x052000,
  OutOfRange: 0x052100,
  InvalidField: 0x052400,
  /** There is no disk here (any more). */
  NoUnit: 0x052500,
  ListTooShort: 0x051a00,
  InvalidList: 0x052600,
  WriteProtected: 0x072700,
  /** ENOSPC. */
  NoSpace: 0x072707,
} as const;

export type Sense = (typeof Senses)[keyof typeof Senses];

export const SENSE_BYTES = 18;

/** Writes fixed-format sense data, for a failed command or for REQUEST SENSE. */
export function writeSense(target: Uint8Array, at: number, sense: Sense): void {
  target.fill(0, at, at + SENSE_BYTES);
  target[at] = 0x70;
  target[at + 2] = sense >> 16;
  target[at + 7] = SENSE_BYTES - 8;
  target[at + 12] = (sense >> 8) & 0xff;
  target[at + 13] = sense & 0xff;
}
