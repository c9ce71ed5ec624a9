/**
 * Goal: nothing about logging ends or blocks a process.
 * Method: the real daemons and commands with each kind of standard error that fails.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readlinkSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { blockdUnfit } from '../support/blockd-process.js';
import { type Daemon, OutputDaemon } from '../support/output-daemon.js';
import { trustCase } from '../support/trust-case.js';

const skip = blockdUnfit === false ? undefined : blockdUnfit;
const DAEMONS: readonly Daemon[] = ['obd-blockd', 'obd-snapshotter'];
/** Enough to fill a pipe or the buffers of a socket several times. */
const LINES = 800;

async function withDaemon(
  daemon: Daemon,
  stderr: Parameters<typeof OutputDaemon.start>[1],
  body: (started: OutputDaemon) => Promise<string>,
): Promise<string> {
  const started = await OutputDaemon.start(daemon, stderr);
  try {
    const seen = await body(started);
    await started.checkAlive();
    await started.stop();
    return seen;
  } catch (error) {
    await started.kill();
    throw error;
  }
}

for (const daemon of DAEMONS) {
  trustCase(
    'logging',
    `${daemon}, log file system full`,
    'calls are answered, the process stays',
    async () => {
      const full = openSync('/dev/full', 'w');
      try {
        return await withDaemon(daemon, full, async (started) => {
          for (let i = 0; i < 20; i++) await started.logSomething();
          return 'ENOSPC for each line, 20 calls answered';
        });
      } finally {
        closeSync(full);
      }
    },
    { skip },
  );

  trustCase(
    'logging',
    `${daemon}, pipe without a reader`,
    'calls are answered, the process stays',
    async () =>
      await withDaemon(daemon, 'pipe', async (started) => {
        started.child.stderr?.destroy();
        for (let i = 0; i < 20; i++) await started.logSomething();
        return 'EPIPE for each line, 20 calls answered';
      }),
    { skip },
  );

  trustCase(
    'logging',
    `${daemon}, closed descriptor`,
    'no file of the daemon takes its place',
    async () =>
      await withDaemon(daemon, 'closed', async (started) => {
        for (let i = 0; i < 20; i++) await started.logSomething();
        const target = readlinkSync(`/proc/${started.child.pid}/fd/2`);
        assert.equal(target, '/dev/null');
        return `descriptor 2 is ${target}, 20 calls answered`;
      }),
    { skip },
  );

  trustCase(
    'logging',
    `${daemon}, pipe that is never read, then read`,
    'no call waits, dropped lines are reported',
    async (t) => {
      const path = join('/var/tmp', `obdf.${process.pid}.${daemon}`);
      execFileSync('mkfifo', [path]);
      const fifo = openSync(path, 'r+');
      execFileSync('rm', [path]);
      t.after(() => closeSync(fifo));
      return await withDaemon(daemon, fifo, async (started) => {
        let slowestMs = 0;
        for (let i = 0; i < LINES; i++) {
          const startedMs = performance.now();
          await started.logSomething();
          slowestMs = Math.max(slowestMs, performance.now() - startedMs);
        }
        readAvailable(fifo);
        await setTimeout(1_500);
        await started.logSomething();
        const text = readAvailable(fifo);
        const dropped = /"lines":([0-9]+),"msg":"log lines dropped/.exec(text)?.[1];
        assert.ok(dropped !== undefined, text.slice(0, 500));
        for (const line of text.trimEnd().split('\n')) JSON.parse(line);
        const slowest = Math.round(slowestMs);
        return `${dropped} lines dropped and reported, slowest call ${slowest} ms`;
      });
    },
    { skip },
  );
}

/** Reads the available bytes of a FIFO. The test holds both ends open, so that it never reads end of file. */
function readAvailable(fifo: number): string {
  const reader = openSync(`/proc/self/fd/${fifo}`, 0o4000);
  const buffer = Buffer.alloc(1 << 20);
  let length = 0;
  try {
    for (;;) length += readSync(reader, buffer, length, buffer.length - length, null);
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'EAGAIN');
  } finally {
    closeSync(reader);
  }
  return buffer.toString('utf8', 0, length);
}
