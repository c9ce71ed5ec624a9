/**
 * The mounts with which a client gets at a snapshot: the same as containerd's overlayfs snapshotter answers, with the
 * mount point of an image where that has the directories of its layers.
 *
 *   nothing below       bind of the snapshot's own directory
 *   a view of one       bind of that one, read-only
 *   all else            overlay, with an upper and a work directory unless it is a view
 */
import { existsSync, readFileSync } from 'node:fs';
import type { Kind } from './snapshot.js';

export interface Mount {
  readonly type: 'bind' | 'overlay';
  readonly source: string;
  readonly options: string[];
}

/** Where a snapshot's files are. */
export interface Places {
  readonly files: string;
  readonly work: string;
  /** Directories of the layers below, top first. */
  readonly lowers: readonly string[];
}

export function bindMount(source: string, access: 'rw' | 'ro'): Mount {
  return { type: 'bind', source, options: [access, 'rbind'] };
}

export function mountsOf(kind: Kind, places: Places, hostOptions: readonly string[]): Mount[] {
  const { files, work, lowers } = places;
  const [nearest] = lowers;
  if (nearest === undefined) return [bindMount(files, kind === 'view' ? 'ro' : 'rw')];
  if (kind === 'view' && lowers.length === 1) return [bindMount(nearest, 'ro')];
  const upper = kind === 'view' ? [] : [`workdir=${work}`, `upperdir=${files}`];
  const options = [...hostOptions, ...upper, `lowerdir=${lowers.join(':')}`];
  return [{ type: 'overlay', source: 'overlay', options }];
}

/**
 * The mount options that overlayfs needs on this host:
 *
 *   index=off   the index would refuse a lower layer that stood under another upper directory before, which is
 *               what image layers do; kernels without it have nothing to switch off
 *   userxattr   in a user namespace, where overlayfs cannot write its own attributes (Linux 5.11 and later)
 */
export function hostOverlayOptions(): string[] {
  const index = existsSync('/sys/module/overlay/parameters/index') ? ['index=off'] : [];
  return isInitialUserNamespace() ? index : [...index, 'userxattr'];
}

/** The initial one maps all ids to themselves. */
function isInitialUserNamespace(): boolean {
  try {
    return /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'));
  } catch {
    return true;
  }
}
