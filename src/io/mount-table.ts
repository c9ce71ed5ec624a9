/** Reads the mounts of this process's mount namespace from /proc/self/mountinfo (proc(5)). */
import { readFile } from 'node:fs/promises';

const MOUNT_TABLE = '/proc/self/mountinfo';

export interface MountPoint {
  readonly target: string;
  readonly fileSystem: string;
  /** For a block device, its node. */
  readonly source: string;
  /** The file system's own, as `rw,lowerdir=/a:/b`. */
  readonly options: string;
}

/** All mounts, oldest first: of two with one target, the last is the visible one. */
export async function readMountTable(): Promise<MountPoint[]> {
  return parseMountTable(await readFile(MOUNT_TABLE, 'utf8'));
}

/** `id parent major:minor root TARGET options [optional fields] - TYPE SOURCE options` */
export function parseMountTable(text: string): MountPoint[] {
  const mounts: MountPoint[] = [];
  for (const line of text.split('\n')) {
    const [place = '', what = ''] = line.split(' - ');
    const target = place.split(' ')[4];
    const [fileSystem, source, options = ''] = what.split(' ');
    if (target === undefined || fileSystem === undefined || source === undefined) continue;
    mounts.push({ target: unescaped(target), fileSystem, source: unescaped(source), options });
  }
  return mounts;
}

/** Where a block device is mounted, and the overlays over these mounts. */
export function mountsOver(device: string, mounts: readonly MountPoint[]): string[] {
  const own = mounts.filter(({ source }) => source === device).map(({ target }) => target);
  const isOver = (mount: MountPoint) =>
    mount.fileSystem === 'overlay' && lowersOf(mount).some((lower) => own.includes(lower));
  return [...own, ...mounts.filter(isOver).map(({ target }) => target)];
}

/** Linux 6.5 and later list each layer as `lowerdir+=` where they were given so. */
function lowersOf({ options }: MountPoint): string[] {
  return options
    .split(',')
    .flatMap((option) => /^lowerdir\+?=(.*)$/.exec(option)?.[1]?.split(':') ?? [])
    .map(unescaped);
}

/** The kernel writes some bytes, space, tab, newline and backslash among them, as three octal digits. */
export function unescaped(text: string): string {
  const bytes = Buffer.from(text).toString('latin1');
  const plain = bytes.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return Buffer.from(plain, 'latin1').toString();
}
