/**
 * The kernel objects of a TCMU device: directories and links of configfs, whose names tell the owner.
 *
 *     core/user_HBA/obd-INSTANCE-ID                  the device: control, enable, attrib/, action/
 *     loopback/naa.TARGET/tpgt_1/{nexus,address}     a SCSI host for this device alone
 *                            .../lun/lun_0/disk      link to the device: with it the host scans, and finds a disk
 *
 *   1. Made in this order and removed in reverse, so a device that has any part has its core device; except that
 *      core/user_HBA is shared by all the daemon's devices.
 *   2. All names follow from INSTANCE and ID. Objects with other names are never written to or removed, and directories
 *      are removed only when empty.
 *   3. While the link is made the kernel holds lun_0 locked and waits, beyond any signal, for the disk's answers. So
 *      this code does not look into lun_0, and link and unlink run in a separate process. That process holds no
 *      resource of a daemon that is killed, and blocks no thread of one that has to answer.
 */
import { createHash } from 'node:crypto';
import { access, mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { DEVICE_BLOCK_BYTES } from '../../io/block-sizes.js';
import { outputOf } from '../../io/run-program.js';

const CONFIGFS = '/sys/kernel/config';
const TARGET = join(CONFIGFS, 'target');
const CORE = join(TARGET, 'core');
const LOOPBACK = join(TARGET, 'loopback');
const UIO_CLASS = '/sys/class/uio';
/** Paths that exist once each module is loaded or built in. */
const MODULES = {
  target_core_user: '/sys/module/target_core_user',
  tcm_loop: '/sys/module/tcm_loop',
  sd_mod: '/sys/bus/scsi/drivers/sd',
};
/** Far above the numbers that other programs begin to count at. */
const HBA_BASE = 0x40000000;
/** NAA 5, and the number that Linux's targets have from the IEEE. */
const NAA_PREFIX = 'naa.5001405';
/** The HBA's directory goes with its last device, perhaps just when another is made. */
const MAKE_TRIES = 16;
/** While the link is made the kernel reads the disk, perhaps from a registry. */
const LINK_MS = 120_000;
/**
 * Room for the data of commands in flight on one device, 16 reads of 1 MiB. The kernel keeps that memory once it was
 * used. Further commands wait in the kernel.
 */
const DATA_AREA_MB = 16;
/** Hundreds of commands; the kernel's own 8 MiB would be in use from the start. */
const RING_MB = 1;

export interface TargetNames {
  readonly hba: string;
  readonly device: string;
  /** The text that the handler programs of this host see; our handler name is the part before the first "/". */
  readonly config: string;
  /** The name of its uio device. */
  readonly uioName: string;
  readonly loop: string;
  /** The SCSI initiator. */
  readonly nexus: string;
  /** 32 hexadecimal digits. */
  readonly serial: string;
}

/** @param instance - 16 hexadecimal digits: the daemon. */
export function targetNames(instance: string, id: string): TargetNames {
  const hbaNumber = HBA_BASE + Number.parseInt(instance.slice(0, 7), 16);
  const hba = join(CORE, `user_${hbaNumber}`);
  const name = `${devicePrefix(instance)}${id}`;
  const config = `obd-ts/${instance}/${id}`;
  const serial = createHash('sha256').update(config).digest('hex').slice(0, 32);
  return {
    hba,
    device: join(hba, name),
    config,
    uioName: `tcm-user/${hbaNumber}/${name}/${config}`,
    loop: join(LOOPBACK, `${NAA_PREFIX}${serial.slice(0, 9)}`),
    nexus: `${NAA_PREFIX}${serial.slice(9, 18)}`,
    serial,
  };
}

function devicePrefix(instance: string): string {
  return `obd-${instance}-`;
}

/** The missing requirement, as the end of a sentence; undefined if this host has all. */
export async function unavailableReason(): Promise<string | undefined> {
  const remedy = 'run scripts/setup-tcmu.sh, or';
  if (!(await isThere(CORE))) {
    return `there is no "${CORE}": ${remedy} \`modprobe target_core_mod\` and mount configfs at "${CONFIGFS}"`;
  }
  for (const [name, path] of Object.entries(MODULES)) {
    if (!(await isThere(path))) {
      return `the module ${name} is not loaded: ${remedy} \`modprobe ${name}\``;
    }
  }
  return process.geteuid?.() === 0 ? undefined : 'it takes root';
}

/** Ids of the daemon's devices, whole and in part. @throws {ObdError} `Io`. */
export async function listTargets(instance: string): Promise<string[]> {
  const { hba } = targetNames(instance, '');
  const prefix = devicePrefix(instance);
  const names = await absentIs([], hba, () => readdir(hba));
  return names.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
}

/** @throws {ObdError} `Io`. */
export async function isMade(names: TargetNames): Promise<boolean> {
  return await isThere(names.device);
}

/** Takes the name. @throws {ObdError} `Busy` if there is one of it, `Host`, `Io`. */
export async function makeCoreDevice(names: TargetNames): Promise<void> {
  for (let tries = 1; ; tries++) {
    await makeFolder(names.hba);
    try {
      await mkdir(names.device);
      return;
    } catch (cause) {
      const code = systemCode(cause);
      if (code === 'ENOENT' && tries < MAKE_TRIES) continue;
      if (code === 'EEXIST') {
        const message = `Cannot make "${names.device}": it is there, from a device that is attached or was left behind`;
        throw new ObdError(ErrorCodes.Busy, message, { path: names.device }, cause);
      }
      throw failed('make', names.device, cause);
    }
  }
}

/**
 * Enables the core device, which then gets a uio device to be served by.
 * @param timeoutSeconds - Time after which an unanswered command fails.
 * @throws {ObdError} `Io`.
 */
export async function enableCoreDevice(
  names: TargetNames,
  sizeBytes: number,
  timeoutSeconds: number,
): Promise<void> {
  const settings = {
    dev_config: names.config,
    dev_size: sizeBytes,
    hw_block_size: DEVICE_BLOCK_BYTES,
    max_data_area_mb: DATA_AREA_MB,
    cmd_ring_size_mb: RING_MB,
    // No handler program has to confirm its creation or removal; see tcmu-transport.ts.
    nl_reply_supported: -1,
  };
  const control = Object.entries(settings).map(([key, value]) => `${key}=${value}`);
  await put(join(names.device, 'control'), control.join(','));
  await put(join(names.device, 'enable'), '1');
  // It cannot be changed once there is a LUN.
  await put(join(names.device, 'attrib', 'cmd_time_out'), String(timeoutSeconds));
}

/** Makes the SCSI host, which finds the disk. The device must be served: this waits for it. @throws {ObdError} `Io`. */
export async function makeLoopTarget(names: TargetNames): Promise<void> {
  await makeFolder(LOOPBACK);
  await makeFolder(names.loop);
  const group = groupOf(names);
  await makeFolder(group);
  await put(join(group, 'nexus'), names.nexus);
  await makeFolder(lunOf(names));
  await outputOf('ln', ['-sT', names.device, linkOf(names)], LINK_MS);
}

/** The SCSI address of the disk, "host:channel:target:0"; undefined if there is no SCSI host. @throws {ObdError} `Io`. */
export async function scsiAddressOf(names: TargetNames): Promise<string | undefined> {
  const path = join(groupOf(names), 'address');
  const text = await absentIs('', path, () => readFile(path, 'utf8'));
  return text === '' ? undefined : `${text.trim()}:0`;
}

/** Takes the disk away. The device must be served until then. Idempotent. @throws {ObdError} `Io`. */
export async function removeLink(names: TargetNames): Promise<void> {
  // A missing LUN has no lock to wait for, and a locked LUN exists.
  if (await isThere(lunOf(names))) await outputOf('rm', ['-f', linkOf(names)], LINK_MS);
}

/** Removes all but the link and the served uio device. Idempotent. @throws {ObdError} `Busy`, `Io`. */
export async function removeTarget(names: TargetNames): Promise<void> {
  await removeFolder(lunOf(names));
  await removeFolder(groupOf(names));
  await removeFolder(names.loop);
  await removeFolder(names.device);
  await removeEmptyHba(names);
}

/**
 * Removes the directory of the daemon's devices, which a killed daemon may have left empty. The kernel keeps it while it
 * holds a device. A concurrent attach makes it again.
 */
export async function removeEmptyHba({ hba }: Pick<TargetNames, 'hba'>): Promise<void> {
  await rmdir(hba).catch(() => {});
}

/** @param action - `reset_ring` 1: the kernel asks again for the commands in the ring. @throws {ObdError} `Io`. */
export async function putAction(
  names: TargetNames,
  action: 'block_dev' | 'reset_ring',
  value: 0 | 1,
): Promise<void> {
  await put(join(names.device, 'action', action), String(value));
}

/** The size that its disk was made with. @throws {ObdError} `Io`. */
export async function sizeBytesOf(names: TargetNames): Promise<number> {
  const path = join(names.device, 'attrib', 'dev_size');
  return Number(await absentIs('0', path, () => readFile(path, 'utf8')));
}

export interface UioNode {
  readonly path: string;
  /** The size of the mapping. */
  readonly sizeBytes: number;
}

/** Its uio device; undefined before it is enabled. @throws {ObdError} `Io`. */
export async function findUio(names: TargetNames): Promise<UioNode | undefined> {
  for (const uio of await absentIs([], UIO_CLASS, () => readdir(UIO_CLASS))) {
    const folder = join(UIO_CLASS, uio);
    const name = await readFile(join(folder, 'name'), 'utf8').catch(() => '');
    if (name.trimEnd() !== names.uioName) continue;
    const size = await readFile(join(folder, 'maps', 'map0', 'size'), 'utf8').catch(() => '0');
    return { path: `/dev/${uio}`, sizeBytes: Number(size) };
  }
  return undefined;
}

function groupOf(names: TargetNames): string {
  return join(names.loop, 'tpgt_1');
}

function lunOf(names: TargetNames): string {
  return join(groupOf(names), 'lun', 'lun_0');
}

function linkOf(names: TargetNames): string {
  return join(lunOf(names), 'disk');
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (cause) {
    if (systemCode(cause) !== 'EEXIST') throw failed('make', path, cause);
  }
}

async function removeFolder(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw failed('remove', path, cause);
  }
}

async function put(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text);
  } catch (cause) {
    throw failed('write', path, cause);
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return false;
    throw failed('look at', path, cause);
  }
}

async function absentIs<T>(absent: T, path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (['ENOENT', 'ENODEV'].includes(systemCode(cause) ?? '')) return absent;
    throw failed('read', path, cause);
  }
}

function failed(action: string, path: string, cause: unknown): ObdError {
  const name = systemCode(cause) ?? '';
  let code: ObdError['code'] = ErrorCodes.Io;
  if (name === 'EBUSY') code = ErrorCodes.Busy;
  else if (name === 'EACCES' || name === 'EPERM' || name === 'EROFS') code = ErrorCodes.Host;
  return new ObdError(code, `Cannot ${action} "${path}": ${messageOf(cause)}`, { path }, cause);
}
