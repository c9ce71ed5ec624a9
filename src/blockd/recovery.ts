/**
 * The daemon's first step: it recovers the devices of an earlier one, because containers wait for them.
 *
 *   - A whole device with a record is served again.
 *   - An orphaned part of a device is cleared. So is a whole device without a record or without its image config, as
 *     `obdctl umount` leaves one when it finds no daemon; unless it is in use.
 *
 * Nothing here keeps a daemon from starting: what cannot be read or taken away is reported and left.
 */
import { access } from 'node:fs/promises';
import type { Logger } from 'pino';
import { TRANSPORT_NAMES, type TransportName } from '../blockdev/transport.js';
import type { Transports } from '../blockdev/transports.js';
import { ErrorCodes, hasCode, systemCode } from '../errors.js';
import { DEAD_REMEDY, type RecoverableDevice } from './device-entry.js';
import type { DeviceRecord, DeviceRecords } from './device-records.js';
import type { DeviceTable } from './device-table.js';

/**
 * Resolves when all devices are in the table and all orphans are gone that can go. Devices are served, and a line is
 * logged, later.
 *
 * @throws {ObdError} `Io` if the records cannot be listed.
 */
export async function recoverDevices(
  table: DeviceTable,
  records: DeviceRecords,
  transports: Transports,
  log: Logger,
): Promise<void> {
  const startedMs = performance.now();
  const known = new Map<string, DeviceRecord>();
  for (const record of await records.all((err) =>
    log.error({ err }, 'device record unusable, its device is not resumed'),
  )) {
    known.set(record.id, record);
  }
  const recoverable: RecoverableDevice[] = [];
  const cleared: string[] = [];
  await Promise.all(
    TRANSPORT_NAMES.map(async (name) => {
      for (const { id, path, deadPath } of await orphansOf(name, transports, log)) {
        const record = known.get(id);
        if (deadPath !== undefined) {
          log.error({ id, path: deadPath, remedy: DEAD_REMEDY }, 'device is dead, removing it');
        }
        const whole = path !== undefined && record?.transport === name && { record, path };
        if (whole && (await hasConfig(record))) recoverable.push(whole);
        else if (await clear(name, id, transports, log)) cleared.push(id);
        else if (whole) recoverable.push(whole);
      }
    }),
  );
  if (cleared.length > 0) log.info({ ids: cleared }, 'orphaned devices removed');
  const recovering = new Set(recoverable.map(({ record }) => record.id));
  for (const id of known.keys()) {
    if (recovering.has(id)) continue;
    await records
      .remove(id)
      .catch((err) => log.warn({ id, err }, 'device record not removed, the next start retries'));
  }
  if (recoverable.length > 0) void resumeAll(table, recoverable, startedMs, log);
}

/** False only if the config is missing, which no retry cures; any other failure to read it may pass. */
async function hasConfig({ configPath }: DeviceRecord): Promise<boolean> {
  return await access(configPath).then(
    () => true,
    (error: unknown) => systemCode(error) !== 'ENOENT',
  );
}

async function orphansOf(name: TransportName, transports: Transports, log: Logger) {
  try {
    return await transports[name].orphans();
  } catch (err) {
    log.error(
      { transport: name, err },
      'search for devices of an earlier run failed, none of this transport is resumed',
    );
    return [];
  }
}

async function clear(
  name: TransportName,
  id: string,
  transports: Transports,
  log: Logger,
): Promise<boolean> {
  try {
    await transports[name].clear(id);
    return true;
  } catch (err) {
    const msg = hasCode(err, ErrorCodes.Busy)
      ? 'orphaned device in use, its reads fail; unmount it'
      : 'orphaned device not removed, the next start retries';
    log.warn({ id, transport: name, err }, msg);
    return false;
  }
}

async function resumeAll(
  table: DeviceTable,
  recoverable: readonly RecoverableDevice[],
  startedMs: number,
  log: Logger,
): Promise<void> {
  // Concurrently: a device whose registry is unavailable must not delay the others.
  const served = await Promise.all(recoverable.map((device) => table.recover(device)));
  const devices = served.filter(Boolean).length;
  const ms = Math.round(performance.now() - startedMs);
  log.info({ devices, waiting: served.length - devices, ms }, 'devices of an earlier run resumed');
}
