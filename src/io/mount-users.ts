/**
 * Finds the users that keep a file system mounted: processes with files of a mount, and mount namespaces with a copy.
 *
 * Both come from /proc, for an error message or a decision on a path that has failed already, so the cost of a scan does
 * not matter. The scan skips processes that end during it, or that this process may not inspect.
 */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { unescaped } from './mount-table.js';

/** Bit 8 of SigPnd and ShdPnd in /proc/PID/status is signal 9. */
const SIGKILL_BIT = 1n << 8n;
/** The scan stops there: a message that names these few is long enough. */
const FOUND_MAX = 8;
const MINOR_BITS = 8n;

export interface MountUser {
  readonly pid: number;
  /** Name of the program, which the kernel cuts off at 15 bytes. */
  readonly name: string;
}

export interface FileUser extends MountUser {
  /** Whether SIGKILL is pending: the process ends as soon as the kernel lets it. */
  readonly isKilled: boolean;
}

export interface NamespaceUser extends MountUser {
  /** Where its namespace has the mount. */
  readonly target: string;
}

/** Processes with a file, a directory or their program below the mount point, at most FOUND_MAX. */
export async function usersBelow(target: string): Promise<FileUser[]> {
  const users: FileUser[] = [];
  for (const pid of await pids()) {
    if (users.length === FOUND_MAX) break;
    if (!(await usesBelow(pid, target))) continue;
    users.push({ pid, name: await nameOf(pid), isKilled: await isKilled(pid) });
  }
  return users;
}

/** One process of each mount namespace in which the block device is mounted, at most FOUND_MAX. */
export async function namespacesWith(devicePath: string): Promise<NamespaceUser[]> {
  const rdev = BigInt((await stat(devicePath)).rdev);
  const device = `${(rdev >> MINOR_BITS) & 0xfffn}:${(rdev & 0xffn) | ((rdev >> 12n) & 0xfff00n)}`;
  const seen = new Set<string>();
  const users: NamespaceUser[] = [];
  for (const pid of await pids()) {
    if (users.length === FOUND_MAX) break;
    const namespace = await readlink(`/proc/${pid}/ns/mnt`).catch(() => undefined);
    if (namespace === undefined || seen.has(namespace)) continue;
    const table = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => undefined);
    if (table === undefined) continue;
    seen.add(namespace);
    const mount = table.split('\n').find((line) => line.split(' ', 3)[2] === device);
    if (mount === undefined) continue;
    users.push({ pid, name: await nameOf(pid), target: unescaped(mount.split(' ', 5)[4] ?? '') });
  }
  return users;
}

/** e.g. `process 12 (sleep), process 13 (bash)` */
export function describeUsers(users: readonly MountUser[]): string {
  return users.map(({ pid, name }) => `process ${pid} (${name})`).join(', ');
}

async function pids(): Promise<number[]> {
  return (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name)).map(Number);
}

async function usesBelow(pid: number, target: string): Promise<boolean> {
  const isBelow = (path: string) => path === target || path.startsWith(`${target}/`);
  const links = ['cwd', 'root', 'exe'].map((name) => `/proc/${pid}/${name}`);
  for (const folder of ['fd', 'map_files']) {
    const directory = `/proc/${pid}/${folder}`;
    const names = await readdir(directory).catch(() => []);
    links.push(...names.map((name) => join(directory, name)));
  }
  for (const link of links) {
    if (isBelow(await readlink(link).catch(() => ''))) return true;
  }
  return false;
}

async function nameOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
}

async function isKilled(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const pending = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)];
  return pending.some(([, bits]) => (BigInt(`0x${bits}`) & SIGKILL_BIT) !== 0n);
}
