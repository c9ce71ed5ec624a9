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

interface FileUser extends MountUser {
  /** Whether SIGKILL is pending: the process ends as soon as the kernel lets it. */
  readonly isKilled: boolean;
}

export interface NamespaceUser extends MountUser {
  /** Where its namespace has the mount. */
  readonly target: string;
}

export interface FileUsers {
  /** At most FOUND_MAX. */
  readonly users: FileUser[];
  /** Whether there are users and SIGKILL is pending for every one, those beyond FOUND_MAX included. */
  readonly areKilled: boolean;
}

/** Processes with a file, a directory or their program below the mount point. */
export async function usersBelow(target: string): Promise<FileUsers> {
  const users: FileUser[] = [];
  let areKilled = true;
  for (const pid of await pids()) {
    if (users.length === FOUND_MAX && !areKilled) break;
    if (!(await usesBelow(pid, target))) continue;
    const user = { pid, name: await nameOf(pid), isKilled: await isKilled(pid) };
    if (users.length < FOUND_MAX) users.push(user);
    areKilled &&= user.isKilled;
  }
  return { users, areKilled: areKilled && users.length > 0 };
}

/**
 * Whether a block device has another mount than the one at `target`: elsewhere in this mount namespace, or in another
 * one. Copies that the kernel unmounts together with that mount do not count: they have the same target and a common
 * peer group.
 */
export async function isMountedElsewhere(devicePath: string, target: string): Promise<boolean> {
  const device = await numbersOf(devicePath);
  const own = mountsOf(device, await readFile('/proc/self/mountinfo', 'utf8'));
  const group = own.find((mount) => mount.target === target)?.shared;
  if (own.some((mount) => mount.target !== target)) return true;
  for await (const { table } of namespaces()) {
    const isCopy = (mount: DeviceMountLine) =>
      mount.target === target && group !== undefined && mount.groups.includes(group);
    const isOwn = (mount: DeviceMountLine) => own.some(({ id }) => id === mount.id);
    if (mountsOf(device, table).some((mount) => !isOwn(mount) && !isCopy(mount))) return true;
  }
  return false;
}

/** One process of each mount namespace in which the block device is mounted, at most FOUND_MAX. */
export async function namespacesWith(devicePath: string): Promise<NamespaceUser[]> {
  const device = await numbersOf(devicePath);
  const users: NamespaceUser[] = [];
  for await (const { pid, table } of namespaces()) {
    if (users.length === FOUND_MAX) break;
    const [mount] = mountsOf(device, table);
    if (mount !== undefined) users.push({ pid, name: await nameOf(pid), target: mount.target });
  }
  return users;
}

/** A mount of a block device, as a line of mountinfo has it (proc(5)). */
interface DeviceMountLine {
  readonly id: string;
  readonly target: string;
  /** The peer group that propagates unmounts from this mount. */
  readonly shared: string | undefined;
  /** The peer groups that propagate unmounts to this mount. */
  readonly groups: readonly string[];
}

function mountsOf(device: string, table: string): DeviceMountLine[] {
  return table.split('\n').flatMap((line) => {
    const [id = '', , numbers, , target = '', , ...optional] =
      line.split(' - ')[0]?.split(' ') ?? [];
    if (numbers !== device) return [];
    const groupsOf = (tag: RegExp) => optional.flatMap((field) => tag.exec(field)?.[1] ?? []);
    const [shared] = groupsOf(/^shared:(.*)$/);
    return [
      { id, target: unescaped(target), shared, groups: groupsOf(/^(?:shared|master):(.*)$/) },
    ];
  });
}

/** `major:minor`, as in mountinfo. */
async function numbersOf(devicePath: string): Promise<string> {
  const rdev = BigInt((await stat(devicePath)).rdev);
  return `${(rdev >> MINOR_BITS) & 0xfffn}:${(rdev & 0xffn) | ((rdev >> 12n) & 0xfff00n)}`;
}

/** Each mount namespace with one of its processes and its mounts. */
async function* namespaces(): AsyncGenerator<{ pid: number; table: string }, void, undefined> {
  const seen = new Set<string>();
  for (const pid of await pids()) {
    const namespace = await readlink(`/proc/${pid}/ns/mnt`).catch(() => undefined);
    if (namespace === undefined || seen.has(namespace)) continue;
    const table = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => undefined);
    if (table === undefined) continue;
    seen.add(namespace);
    yield { pid, table };
  }
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
