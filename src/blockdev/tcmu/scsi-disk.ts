/**
 * The block device that Linux makes of a SCSI address, and how long it waits for answers.
 */
import { access, readdir, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';

const SCSI_DEVICES = '/sys/bus/scsi/devices';
/** The kernel scans and names the disk asynchronously. */
const APPEAR_MS = 30_000;
const POLL_MS = 2;
/** TCMU must give up on a command first: otherwise the kernel would abort it, and wait for that. */
const MORE_SECONDS = 60;

/** Its node in /dev; undefined if there is none (yet, or any more). @throws {ObdError} `Io`. */
export async function diskNodeOf(address: string): Promise<string | undefined> {
  const path = `${SCSI_DEVICES}/${address}/block`;
  try {
    const [name] = await readdir(path);
    return name === undefined ? undefined : `/dev/${name}`;
  } catch (cause) {
    if (['ENOENT', 'ENODEV'].includes(systemCode(cause) ?? '')) return undefined;
    const message = `Cannot read "${path}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, message, { path }, cause);
  }
}

/** @throws {ObdError} `Io` if it does not appear. */
export async function waitForDisk(address: string): Promise<string> {
  const deadline = performance.now() + APPEAR_MS;
  while (performance.now() < deadline) {
    const node = await diskNodeOf(address);
    if (node !== undefined && (await isThere(node))) return node;
    await sleep(POLL_MS);
  }
  throw new ObdError(
    ErrorCodes.Io,
    `Cannot find the disk at SCSI address ${address}: no node in /dev after ${APPEAR_MS} ms`,
  );
}

/**
 * Sets the SCSI layer's command timeout above TCMU's.
 *
 * @param address - The node in /dev exists for a moment before the one in /sys/block, so the path is made from the address.
 * @param timeoutSeconds - TCMU's.
 *
 * @throws {ObdError} `Io`.
 */
export async function setCommandTimeout(address: string, timeoutSeconds: number): Promise<void> {
  const path = `${SCSI_DEVICES}/${address}/timeout`;
  try {
    await writeFile(path, String(timeoutSeconds + MORE_SECONDS));
  } catch (cause) {
    const message = `Cannot write "${path}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, message, { path }, cause);
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
