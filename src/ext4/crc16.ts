/** The CRC of group descriptors (ext4's uninit_bg): polynomial 0x8005, reflected. */
const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0xa001 : crc >>> 1;
  return crc;
});

/** Continues `crc`; the first call of a checksum starts from 0xffff. */
export function crc16(crc: number, bytes: Uint8Array): number {
  let result = crc;
  for (const byte of bytes) result = (result >>> 8) ^ (TABLE[(result ^ byte) & 0xff] as number);
  return result;
}
