/**
 * SCSI commands: which there are here, and where in their bytes a block address and a count stand.
 */
export const Opcodes = {
  TestUnitReady: 0x00,
  RequestSense: 0x03,
  Read6: 0x08,
  Write6: 0x0a,
  Inquiry: 0x12,
  ModeSelect6: 0x15,
  ModeSense6: 0x1a,
  StartStopUnit: 0x1b,
  ReadCapacity10: 0x25,
  Read10: 0x28,
  Write10: 0x2a,
  Verify10: 0x2f,
  SynchronizeCache10: 0x35,
  WriteSame10: 0x41,
  Unmap: 0x42,
  ModeSelect10: 0x55,
  ModeSense10: 0x5a,
  Read16: 0x88,
  Write16: 0x8a,
  Verify16: 0x8f,
  SynchronizeCache16: 0x91,
  WriteSame16: 0x93,
  ServiceActionIn16: 0x9e,
  ReportLuns: 0xa0,
  MaintenanceIn: 0xa3,
  Read12: 0xa8,
  Write12: 0xaa,
  Verify12: 0xaf,
} as const;

export const ServiceActions = {
  /** Of ServiceActionIn16. */
  ReadCapacity16: 0x10,
  /** Of MaintenanceIn. */
  ReportSupportedOperationCodes: 0x0c,
} as const;

/** The service action that an opcode is used with, for opcodes that stand for many commands. */
export const SERVICE_ACTION_OF: ReadonlyMap<number, number> = new Map<number, number>([
  [Opcodes.ServiceActionIn16, ServiceActions.ReadCapacity16],
  [Opcodes.MaintenanceIn, ServiceActions.ReportSupportedOperationCodes],
]);

/** The bytes of a command that are read; the rest is ignored. */
export const CDB_BYTES = 16;

/** How many bytes a command of this opcode has, by its group. */
export function cdbBytesOf(opcode: number): number {
  const group = opcode >> 5;
  if (group === 0) return 6;
  if (group === 4) return 16;
  return group === 5 ? 12 : 10;
}

/** The first block that a command is about. Inexact above 2^53, where no disk ends. */
export function blockOf(cdb: Buffer): number {
  switch (cdbBytesOf(cdb[0]!)) {
    case 6:
      return cdb.readUIntBE(1, 3) & 0x1fffff;
    case 16:
      return cdb.readUInt32BE(2) * 2 ** 32 + cdb.readUInt32BE(6);
    default:
      return cdb.readUInt32BE(2);
  }
}

/** How many blocks it is about. */
export function blockCountOf(cdb: Buffer): number {
  switch (cdbBytesOf(cdb[0]!)) {
    case 6:
      return cdb[4]! || 256;
    case 10:
      return cdb.readUInt16BE(7);
    case 12:
      return cdb.readUInt32BE(6);
    default:
      return cdb.readUInt32BE(10);
  }
}
