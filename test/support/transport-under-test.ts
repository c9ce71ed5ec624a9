/** The parameters of the transport suite's checks, and the ways in which they use a device like other processes. */
import { execFile } from 'node:child_process';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Transport } from '../../src/blockdev/transport.js';
import type { MemoryDisk } from './virtual-disks.js';

const run = promisify(execFile);
export const PAGE_BYTES = 4096;

export interface TransportUnderTest {
  readonly transport: Transport;
  /** For the test's own files. */
  readonly folder: string;
  /** Another transport on the same directory, as a later process would make it. */
  again(): Transport;
  /** All that the transport has on this host now: devices, mounts, processes, files. Empty if there is nothing. */
  leftovers(): Promise<string[]>;
}

/** Makes a new transport for one test, and removes it afterwards. */
export type StartTransport = (t: TestContext) => Promise<TransportUnderTest>;

export type Check = (what: string, body: (t: TestContext) => Promise<void>) => void;

/** Reads a page past the page cache, in a separate process: a waiting read blocks no thread of this one. */
export async function readPage(path: string, offset: number): Promise<Buffer> {
  const what = [`if=${path}`, `bs=${PAGE_BYTES}`, 'count=1', `skip=${offset / PAGE_BYTES}`];
  const how = ['iflag=direct', 'status=none'];
  return (await run('dd', [...what, ...how], { encoding: 'buffer' })).stdout;
}

export function pageOf(disk: MemoryDisk, offset: number): Buffer {
  return Buffer.from(disk.bytes.subarray(offset, offset + PAGE_BYTES));
}

/** Polls until the condition holds. @throws After half a minute. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  const signal = AbortSignal.timeout(30_000);
  while (!(await isSo())) await sleep(5, undefined, { signal });
}
