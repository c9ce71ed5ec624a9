/**
 * NBD devices as the kernel shows them in /sys/block: which there are, whose they are, how large, and which numbers
 * are free. A device comes and goes while we look; one that is going reads as one that is not there.
 */
import { readdir, readFile } from 'node:fs/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { SECTOR_BYTES } from '../../io/block-sizes.js';
import { unusedIndexes } from './unused-indexes.js';

const BLOCK_FOLDER = '/sys/block';
const REQUEST_PATIENCE = 'queue/io_timeout';
const PARAMETERS = '/sys/module/nbd/parameters';

export interface NamedDevice {
  readonly index: number;
  /** The name of the disk behind it, as given by the process that connected it. */
  readonly backend: string;
}

export function nodeOf(index: number): string {
  return `/dev/nbd${index}`;
}

/** The devices that are connected, or were and are still open, and have a backend's name. @throws {ObdError} `Io`. */
export async function listNamedDevices(): Promise<NamedDevice[]> {
  const found: NamedDevice[] = [];
  for (const index of await listIndexes()) {
    const backend = await backendOf(index);
    if (backend !== undefined) found.push({ index, backend });
  }
  return found;
}

/** @throws {ObdError} `Io`. */
export async function backendOf(index: number): Promise<string | undefined> {
  return (await attributeOf(index, 'backend'))?.replace(/\n$/, '');
}

/** Undefined where there is no such device. @throws {ObdError} `Io`. */
export async function sizeBytesOf(index: number): Promise<number | undefined> {
  const sectors = await attributeOf(index, 'size');
  return sectors === undefined ? undefined : Number(sectors) * SECTOR_BYTES;
}

/**
 * After how long, in ms, the kernel looks at a request that is not answered. A write to this attribute waits for the
 * requests in flight. Undefined where there is no such device.
 * @throws {ObdError} `Io`.
 */
export async function requestPatienceOf(index: number): Promise<number | undefined> {
  const text = await attributeOf(index, REQUEST_PATIENCE);
  return text === undefined ? undefined : Number(text);
}

export function requestPatiencePath(index: number): string {
  return `${BLOCK_FOLDER}/nbd${index}/${REQUEST_PATIENCE}`;
}

/**
 * Numbers of devices that are not there yet, the lowest first. The devices that the module makes when it is loaded are
 * left out, for programs that name them on a command line.
 * @throws {ObdError} `Io`.
 */
export async function freeIndexes(countMax: number): Promise<number[]> {
  const [nbdsMax, partitionsMax] = await Promise.all([
    parameter('nbds_max'),
    parameter('max_part'),
  ]);
  return unusedIndexes(new Set(await listIndexes()), nbdsMax, partitionsMax, countMax);
}

/** Whether there is a device node of this number, used or not. @throws {ObdError} `Io`. */
export async function isThere(index: number): Promise<boolean> {
  return (await listIndexes()).includes(index);
}

async function listIndexes(): Promise<number[]> {
  const names = await reading(BLOCK_FOLDER, readdir(BLOCK_FOLDER));
  return (names ?? []).flatMap((name) => {
    const digits = /^nbd([0-9]+)$/.exec(name)?.[1];
    return digits === undefined ? [] : [Number(digits)];
  });
}

async function attributeOf(index: number, name: string): Promise<string | undefined> {
  const path = `${BLOCK_FOLDER}/nbd${index}/${name}`;
  return await reading(path, readFile(path, 'utf8'));
}

async function parameter(name: string): Promise<number> {
  const path = `${PARAMETERS}/${name}`;
  return Number((await reading(path, readFile(path, 'utf8'))) ?? 0);
}

async function reading<T>(path: string, content: Promise<T>): Promise<T | undefined> {
  try {
    return await content;
  } catch (cause) {
    if (['ENOENT', 'ENODEV', 'ENXIO'].includes(systemCode(cause) ?? '')) return undefined;
    throw new ObdError(
      ErrorCodes.Io,
      `Cannot read "${path}": ${messageOf(cause)}`,
      { path },
      cause,
    );
  }
}
