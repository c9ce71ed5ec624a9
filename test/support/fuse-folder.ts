/** Folders for tests of the fuse transport: they list what the transport has there, and are emptied if the test fails. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { listHolders } from '../../src/blockdev/fuse/fuse-file.js';
import { listLoops } from '../../src/blockdev/fuse/loop-device.js';
import { readMountTable } from '../../src/io/mount-table.js';

const run = promisify(execFile);
const EVENTUALLY_MS = 15_000;

/** Removed after the test. Not below /tmp, whose files may be in memory: loop devices need not work on those. */
export async function fuseFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp('/var/tmp/obd-fuse-');
  t.after(async () => {
    await takeAway(`${folder}/`);
    await rm(folder, { recursive: true, force: true });
  });
  return folder;
}

/** The files below the folder that are behind loop devices, mounted, or have a holder. */
export async function fuseLeftovers(folder: string): Promise<string[]> {
  const loops = (await listLoops()).map(({ backingFile }) => backingFile);
  const mounts = (await readMountTable()).map(({ target }) => target);
  const holders = (await listHolders()).keys();
  return [...loops, ...mounts, ...holders].filter((each) => each.startsWith(`${folder}/`));
}

/** The holders first: their end fails the reads that wait for the devices, and so frees the devices. */
async function takeAway(prefix: string): Promise<void> {
  for (const [file, pids] of await listHolders()) {
    if (file.startsWith(prefix)) for (const pid of pids) process.kill(pid, 'SIGKILL');
  }
  for (const { path, backingFile } of await listLoops()) {
    if (backingFile.startsWith(prefix)) await run('losetup', ['--detach', path]);
  }
  for (const { target } of await readMountTable()) {
    if (target.startsWith(prefix)) await run('umount', ['--lazy', target]);
  }
}

/** Polls until the condition holds, for a while. */
export async function eventually(
  what: string,
  isSo: () => Promise<boolean> | boolean,
): Promise<void> {
  const deadline = performance.now() + EVENTUALLY_MS;
  while (!(await isSo())) {
    assert.ok(performance.now() < deadline, `not after ${EVENTUALLY_MS} ms: ${what}`);
    await sleep(5);
  }
}
