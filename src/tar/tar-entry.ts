/**
 * One member of a tar archive, with the information of later headers, pax records and GNU extensions folded in.
 *
 * Names and values are bytes: a tar promises no encoding, and a capability (`security.capability`) is binary. Xattr
 * names are the one exception: they are kept as latin1 strings, one character per byte, so that they can be keys of a
 * Map without losing any of them.
 */

/** Seconds and nanoseconds since the epoch; nanoseconds are 0..999999999 for times before it as well. */
export interface TarTime {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** `other` is a typeflag that this reader does not know; `typeflag` says which. */
export type TarEntryKind =
  | 'file'
  | 'hardlink'
  | 'symlink'
  | 'character'
  | 'block'
  | 'directory'
  | 'fifo'
  | 'other';

export interface TarEntry {
  readonly kind: TarEntryKind;
  readonly typeflag: number;
  /** As in the archive: neither cleaned nor checked. Never contains NUL. */
  readonly name: Uint8Array;
  /** Target of a symlink, or the archive name of a hard link's target. Never contains NUL. */
  readonly linkName: Uint8Array;
  /** All bits of the field: old writers put the file type (S_IFMT) there too. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: TarTime;
  /** Undefined where the archive does not say. */
  readonly atime: TarTime | undefined;
  readonly ctime: TarTime | undefined;
  /** Bytes of the file once extracted, holes included; 0 for anything that has no content. */
  readonly sizeBytes: number;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
  /** Bytes from the start of the (uncompressed) archive to this member's header block. */
  readonly offset: number;
}

/** The sink of a file's content, front to back: bytes, and runs of zeroes that need not be stored. */
export interface ContentSink {
  /** The bytes are only valid during the call. */
  write(chunk: Uint8Array): void;
  hole(lengthBytes: number): void;
}

/** A name for an error message: quoted, control characters escaped, shortened. */
export function quoteName(name: Uint8Array): string {
  const text = JSON.stringify(Buffer.from(name.subarray(0, QUOTED_BYTES_MAX)).toString('utf8'));
  return name.length > QUOTED_BYTES_MAX ? `${text}...` : text;
}

/** Long enough to recognise a path, short enough for one line of a log. */
const QUOTED_BYTES_MAX = 200;
