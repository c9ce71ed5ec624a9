/** The magic of a ZFile, which tells it from other files without loading its codecs. docs/formats/zfile.md. */

export const ZFILE_MAGIC = Buffer.from('5a46696c6500010074756a692e79796640416c6962616261', 'hex');

/** Whether a file that begins with these bytes has a ZFile's magic. */
export function hasZFileMagic(head: Uint8Array): boolean {
  return (
    head.length >= ZFILE_MAGIC.length && ZFILE_MAGIC.equals(head.subarray(0, ZFILE_MAGIC.length))
  );
}
