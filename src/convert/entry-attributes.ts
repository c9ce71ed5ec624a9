/**
 * Maps a tar member's owner, mode, times and xattrs to the file system.
 *
 * The rule for xattrs is the kernel's, as if root had unpacked the layer onto ext4: a name outside the namespaces that
 * ext4 has is dropped with a warning (the kernel says ENOTSUP, and every engine ignores that), and so is `user.*` on
 * anything but files and directories (EPERM).
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Attributes } from '../ext4/ext4-file-system.js';
import { SECONDS_MAX, SECONDS_MIN } from '../ext4/inode.js';
import type { TarEntry, TarTime } from '../tar/tar-entry.js';

/** 2^32 - 1 means "leave it" to chown(2), and the kernel shows no such owner. */
const ID_MAX = 0xffff_fffe;
/** Linux device numbers: 12 bits of major, 20 of minor. */
const MAJOR_MAX = 0xfff;
const MINOR_MAX = 0xf_ffff;
/** The kernel's form of an ACL: a version, then entries of tag, permissions and id (linux/posix_acl_xattr.h). */
const ACCESS_ACL = 'system.posix_acl_access';
const ACL_HEADER_BYTES = 4;
const ACL_ENTRY_BYTES = 8;
const ACL_USER_OBJ = 0x01;
const ACL_GROUP_OBJ = 0x04;
const ACL_MASK = 0x10;
const ACL_OTHER = 0x20;
const NAMESPACES = /^(user|trusted|security)\..|^system\.posix_acl_(access|default)$/s;

/** @throws {ObdError} `Corrupt` for an impossible owner. */
export function attributesOf(entry: TarEntry): Attributes {
  for (const id of [entry.uid, entry.gid]) {
    if (id <= ID_MAX) continue;
    throw new ObdError(ErrorCodes.Corrupt, `its owner is ${id}, more than ${ID_MAX}`);
  }
  const mtime = clamp(entry.mtime);
  return {
    // Links have no mode; Linux shows 0777 for any mode in an archive.
    mode: entry.kind === 'symlink' ? 0o777 : modeOf(entry),
    uid: entry.uid,
    gid: entry.gid,
    mtime,
    atime: entry.atime === undefined ? mtime : clamp(entry.atime),
    ctime: entry.ctime === undefined ? mtime : clamp(entry.ctime),
  };
}

/**
 * An access ACL holds the mode's nine bits as well, and setting one sets them: where an archive contradicts
 * itself the ACL wins, as it does for umoci. The group's bits are the mask, if there is one.
 */
function modeOf(entry: TarEntry): number {
  const mode = entry.mode & 0o7777;
  const acl = Buffer.from(entry.xattrs.get(ACCESS_ACL) ?? []);
  const found = new Map<number, number>();
  for (let at = ACL_HEADER_BYTES; at + ACL_ENTRY_BYTES <= acl.length; at += ACL_ENTRY_BYTES) {
    found.set(acl.readUInt16LE(at), acl.readUInt16LE(at + 2) & 0o7);
  }
  const owner = found.get(ACL_USER_OBJ);
  const group = found.get(ACL_MASK) ?? found.get(ACL_GROUP_OBJ);
  const other = found.get(ACL_OTHER);
  if (owner === undefined || group === undefined || other === undefined) return mode;
  return (mode & 0o7000) | (owner << 6) | (group << 3) | other;
}

/** Attributes of directories that no layer describes: owned by root, mode 0755, with the time of their first entry. */
export function parentAttributes(entry: TarEntry): Attributes {
  const mtime = clamp(entry.mtime);
  return { mode: 0o755, uid: 0, gid: 0, mtime, atime: mtime, ctime: mtime };
}

/** @throws {ObdError} `Unsupported` for a device number that Linux has no room for. */
export function deviceOf(entry: TarEntry): { readonly major: number; readonly minor: number } {
  const { major, minor } = entry;
  if (major <= MAJOR_MAX && minor <= MINOR_MAX) return { major, minor };
  const found = `its device number is ${major}:${minor}, the highest is ${MAJOR_MAX}:${MINOR_MAX}`;
  throw new ObdError(ErrorCodes.Unsupported, found);
}

/** Returns the xattrs to store; calls `drop` for the others, with the reason. */
export function xattrsOf(
  entry: TarEntry,
  drop: (name: string, why: string) => void,
): Map<string, Uint8Array> {
  const kept = new Map<string, Uint8Array>();
  for (const [name, value] of entry.xattrs) {
    if (!NAMESPACES.test(name)) drop(name, 'ext4 has no such namespace');
    else if (name.startsWith('user.') && entry.kind !== 'file' && entry.kind !== 'directory') {
      drop(name, 'only files and directories have user xattrs');
    } else kept.set(name, value);
  }
  return kept;
}

/** As the kernel does. */
function clamp(time: TarTime): TarTime {
  if (time.seconds < SECONDS_MIN) return { seconds: SECONDS_MIN, nanoseconds: 0 };
  if (time.seconds > SECONDS_MAX) return { seconds: SECONDS_MAX, nanoseconds: 0 };
  return time;
}
