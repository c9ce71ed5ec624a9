/** fio on a device, pass after pass, each byte checked by the CRC that it carries. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const JOB = ['--name=v', '--bs=4k', '--ioengine=libaio', '--iodepth=8', '--randseed=1'];
const VERIFY = ['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0'];
const OUTPUT = ['--output-format=json', '--eta=never'];
const POLL_MS = 5;

export interface LoadReport {
  readonly passes: number;
  /** Requests that were answered. */
  readonly requests: number;
  readonly longestStallMs: number;
}

interface Direction {
  readonly total_ios: number;
  readonly clat_ns: { readonly max: number };
}

/** Fills a file with blocks that carry their CRC, against which a read-only device of it is checked. */
export async function prepareFile(path: string, sizeBytes: number): Promise<void> {
  const what = [`--filename=${path}`, `--size=${sizeBytes}`, '--rw=randwrite', '--do_verify=0'];
  await run('fio', [...JOB, ...VERIFY, ...what]);
}

export class FioLoad {
  readonly #statistics: string;
  readonly #report: Promise<LoadReport>;
  #isWanted = true;

  /** @param writes - Whether each pass writes the device anew; otherwise it reads what prepareFile() wrote. */
  constructor(device: string, folder: string, sizeBytes: number, { writes }: { writes: boolean }) {
    this.#statistics = `/sys/class/block/${basename(device)}/stat`;
    // Slow enough that a pass lasts for some time on any host.
    const what = [`--filename=${device}`, `--size=${sizeBytes}`, '--direct=1', '--rate_iops=600'];
    const how = writes
      ? ['--rw=randwrite', '--verify_backlog=64']
      : ['--rw=randread', '--readonly'];
    this.#report = this.#passes([...JOB, ...VERIFY, ...OUTPUT, ...what, ...how], folder);
    // finish() throws the error.
    this.#report.catch(() => {});
  }

  /** Resolves when requests are being answered: between two passes there are none, which on a slow host takes seconds. */
  async flows(): Promise<void> {
    const before = await this.#answered();
    while ((await this.#answered()) === before) {
      const ended = await Promise.race([this.#report.then(() => true), sleep(POLL_MS, false)]);
      assert.ok(!ended);
    }
  }

  /** Lets the pass that runs come to its end. @throws If any request failed, or answered other bytes. */
  async finish(): Promise<LoadReport> {
    this.#isWanted = false;
    return await this.#report;
  }

  /** Requests, by Documentation/block/stat.rst: reads completed, and writes. */
  async #answered(): Promise<number> {
    const fields = (await readFile(this.#statistics, 'utf8')).trim().split(/ +/);
    return Number(fields[0]) + Number(fields[4]);
  }

  async #passes(args: readonly string[], cwd: string): Promise<LoadReport> {
    const report = { passes: 0, requests: 0, longestStallMs: 0 };
    while (this.#isWanted) {
      const { stdout } = await run('fio', args, { cwd });
      const [job] = (
        JSON.parse(stdout) as { jobs: (Record<'read' | 'write', Direction> & { error: number })[] }
      ).jobs;
      assert.equal(job?.error, 0);
      for (const { total_ios, clat_ns } of [job.read, job.write]) {
        report.requests += total_ios;
        report.longestStallMs = Math.max(report.longestStallMs, Math.round(clat_ns.max / 1e6));
      }
      report.passes++;
    }
    return report;
  }
}
