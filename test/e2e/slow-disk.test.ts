/**
 * Goal: a read of a file on a slow disk does not block the thread, and returns the file's bytes.
 * Method: an ext4 on a loop device over a file whose every read takes DELAY_MS (nbdkit's delay filter behind nbdfuse),
 * and a clock that ticks on the event loop during the reads.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalFile } from '../../src/io/local-file.js';
import { readFully } from '../../src/io/random-access-file.js';

const DELAY_MS = 200;
/** A blocked thread would miss ticks for DELAY_MS; a busy machine may delay them for a part of it. */
const BLOCKED_MS_MAX = DELAY_MS * 0.75;
const FILE_BYTES = 8 << 20;

const missing = ['nbdkit', 'nbdfuse', 'mke2fs'].find(
  (program) => spawnSync(program, ['--version']).error !== undefined,
);
const skip =
  process.getuid?.() !== 0
    ? 'it takes root'
    : !existsSync('/dev/fuse') || !existsSync('/dev/loop-control')
      ? 'this host has no FUSE or no loop devices'
      : missing && `${missing} is not installed`;

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

async function waitFor(path: string): Promise<void> {
  for (let turn = 0; !existsSync(path); turn++) {
    assert.ok(turn < 200, `${path} does not appear`);
    await sleep(50);
  }
}

/** A file of those bytes on the slow disk; nothing of it is in the page cache. */
async function slowFile(t: TestContext, bytes: Uint8Array): Promise<LocalFile> {
  const folder = await mkdtemp('/var/tmp/obd-slow-');
  const undo: (() => unknown)[] = [() => rm(folder, { recursive: true })];
  t.after(async () => {
    for (const step of undo.reverse()) await step();
  });
  const content = join(folder, 'content');
  await mkdir(content);
  await writeFile(join(content, 'file'), bytes);
  const image = join(folder, 'image');
  const size = `${(2 * FILE_BYTES) >> 20}M`;
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-O', '^has_journal', '-d', content, image, size]);

  const socket = join(folder, 'nbd.sock');
  const source = ['--filter=delay', 'file', image, `delay-read=${DELAY_MS}ms`];
  const nbdkit = spawn('nbdkit', ['-f', '-r', '-U', socket, ...source]);
  undo.push(async () => {
    nbdkit.kill('SIGTERM');
    await ended(nbdkit);
  });
  await waitFor(socket);
  const disk = join(folder, 'disk');
  const mounted = join(folder, 'mounted');
  await writeFile(disk, '');
  await mkdir(mounted);
  const nbdfuse = spawn('nbdfuse', ['-r', disk, `nbd+unix:///?socket=${socket}`]);
  undo.push(async () => {
    spawnSync('fusermount', ['-u', disk]);
    await ended(nbdfuse);
  });
  // Empty until it is the disk.
  for (let turn = 0; statSync(disk).size === 0; turn++) {
    assert.ok(turn < 200, 'nbdfuse does not mount');
    await sleep(50);
  }
  execFileSync('mount', ['-o', 'ro,loop', disk, mounted]);
  undo.push(() => execFileSync('umount', [mounted]));
  const file = LocalFile.open(join(mounted, 'file'));
  undo.push(() => file.close());
  return file;
}

test('a cold read on a slow disk does not block the event loop', {
  skip,
  timeout: 120_000,
}, async (t) => {
  const bytes = Buffer.alloc(FILE_BYTES);
  for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE(Math.imul(i, 0x9e3779b1) >>> 0, i);
  const file = await slowFile(t, bytes);
  // The file's extents are read before any of its bytes, and that does block.
  await readFully(file, Buffer.alloc(4096), FILE_BYTES - 4096);

  let blockedMs = 0;
  let last = performance.now();
  const clock = setInterval(() => {
    blockedMs = Math.max(blockedMs, performance.now() - last);
    last = performance.now();
  }, 5);
  const start = performance.now();
  await Promise.all(
    [4096, (1 << 20) + 100, 4 << 20].map(async (offset, i) => {
      const target = Buffer.alloc(10_000 * (i + 1));
      assert.equal(file.tryRead(target, offset), false);
      await readFully(file, target, offset);
      assert.deepEqual(target, bytes.subarray(offset, offset + target.length));
    }),
  );
  const tookMs = performance.now() - start;
  clearInterval(clock);
  t.diagnostic(
    `three reads took ${tookMs.toFixed()} ms, the loop stood still for ${blockedMs.toFixed()} ms at most`,
  );
  assert.ok(tookMs > DELAY_MS * 0.9, `${tookMs} ms: the disk was not asked`);
  assert.ok(blockedMs < BLOCKED_MS_MAX, `the loop stood still for ${blockedMs} ms`);
});
