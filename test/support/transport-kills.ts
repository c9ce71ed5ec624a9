/**
 * The part of the transport suite about killed processes. Under load, processes that use the device notice only a
 * delay. If the server is killed in attach, detach or resume, the next process finds the device, whole or to be
 * cleared.
 * Method: a separate process serves a file, and is killed OBD_KILLS times under fio, and a fifth as often otherwise.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { OrphanedDevice, TransportName } from '../../src/blockdev/transport.js';
import { ErrorCodes, hasCode } from '../../src/errors.js';
import { FioLoad, prepareFile } from './fio-load.js';
import { kernelObjects, watchBy } from './kernel-transports.js';
import type { Check, StartTransport } from './transport-under-test.js';
import { MemoryDisk, pagesOf } from './virtual-disks.js';

const run = promisify(execFile);
/** The long run, also of daemons, has a hundred; see docs/testing.md. */
const KILLS = Number(process.env['OBD_KILLS'] ?? 4);
const KILLS_MIDWAY = Math.max(2, Math.ceil(KILLS / 5));
const DISK_BYTES = 4 << 20;
/** Less than a pass of fio lasts. */
const UNDER_LOAD_MS = 300;
/** Time limit of an attach, and of a detach, on a slow host. */
const MIDWAY_MS = 300;
const ID = 'victim';
/** Fuse cannot tell a server that lives from one that is being killed, and ublk waits 20 s for its end. */
const SEES_SERVERS: readonly TransportName[] = ['nbd', 'tcmu'];
const SERVER_PROCESS = join(
  import.meta.dirname,
  `transport-server-process${import.meta.filename.slice(-3)}`,
);

/** A process that serves `folder`/disk. */
class Server {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(t: TestContext, name: TransportName, folder: string, action: 'attach' | 'resume') {
    const args = [SERVER_PROCESS, name, folder, join(folder, 'disk'), action];
    const flags = process.execArgv.filter((flag) => !flag.startsWith('--test'));
    this.#child = spawn(process.execPath, [...flags, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#lines = createInterface(this.#child.stdout!)[Symbol.asyncIterator]();
    t.after(() => this.#child.kill('SIGKILL'));
  }

  async says(): Promise<string> {
    const { value } = await this.#lines.next();
    assert.ok(value !== undefined, 'it ended');
    return value;
  }

  async saysPath(): Promise<string> {
    assert.equal(await this.says(), 'begins');
    return await this.says();
  }

  detach(): void {
    this.#child.kill('SIGUSR1');
  }

  /** Resolves when the process has ended. */
  async detached(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.detach();
    assert.equal(await this.says(), 'ends');
    assert.deepEqual(await ended, [0, null]);
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

export function killChecks(
  name: TransportName,
  check: Check,
  start: StartTransport,
  { writable }: { readonly writable: boolean },
): void {
  /** A separate folder: the suite's own server may use the other one. */
  const begin = async (t: TestContext) => {
    const folder = join((await start(t)).folder, 'killed');
    await mkdir(folder);
    await prepareFile(join(folder, 'disk'), DISK_BYTES);
    const transport = watchBy(name, folder);
    t.after(async () => {
      // Ends reads of a device whose test failed.
      for (const { id } of await transport.orphans()) await transport.clear(id);
    });
    const objects = await kernelObjects(name, folder);
    const nothingLeft = async () => {
      assert.deepEqual(await transport.orphans(), []);
      assert.deepEqual(await kernelObjects(name, folder), objects);
      assert.deepEqual(await readdir(join(folder, 'devices')).catch(() => []), []);
    };
    /** As the next daemon does: a device in use, even if only by a read of the killed process, is served first. */
    const takeAway = async ({ id, path }: OrphanedDevice) => {
      assert.equal(id, ID);
      try {
        await transport.clear(id);
      } catch (error) {
        if (path === undefined || !hasCode(error, ErrorCodes.Busy)) throw error;
        const next = new Server(t, name, folder, 'resume');
        assert.equal(await next.saysPath(), path);
        await next.detached();
      }
    };
    return { transport, folder, takeAway, nothingLeft };
  };

  check('servers are killed under load: no error, no mismatch', async (t) => {
    const { transport, folder, nothingLeft } = await begin(t);
    let server = new Server(t, name, folder, 'attach');
    const path = await server.saysPath();
    const load = new FioLoad(path, folder, DISK_BYTES, { writes: writable });
    for (let i = 0; i < KILLS; i++) {
      await load.flows();
      await sleep(Math.random() * UNDER_LOAD_MS);
      await server.kill();
      server = new Server(t, name, folder, 'resume');
      assert.equal(await server.saysPath(), path);
    }
    const { requests, longestStallMs } = await load.finish();
    t.diagnostic(
      `${KILLS} kills, ${requests} requests, 0 errors, 0 mismatches, longest stall ${longestStallMs} ms`,
    );
    const sums = await run('sha256sum', [path, join(folder, 'disk')]);
    const [ofDevice, ofFile] = sums.stdout.split('\n').map((line) => line.slice(0, 64));
    assert.equal(ofDevice, ofFile);
    await server.kill();
    assert.deepEqual(await transport.orphans(), [{ id: ID, path }]);
    await transport.clear(ID);
    await nothingLeft();
  });

  check('clear() refuses a device of a killed server until it is unmounted', async (t) => {
    const { transport, folder, nothingLeft } = await begin(t);
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', join(folder, 'disk')]);
    const server = new Server(t, name, folder, 'attach');
    const path = await server.saysPath();
    const mountPoint = join(folder, 'mnt');
    await mkdir(mountPoint);
    await run('mount', ['-o', 'ro', path, mountPoint]);
    await server.kill();
    await assert.rejects(transport.clear(ID), { code: ErrorCodes.Busy });
    const next = new Server(t, name, folder, 'resume');
    assert.equal(await next.saysPath(), path);
    await run('umount', [mountPoint]);
    await next.kill();
    await transport.clear(ID);
    await transport.clear(ID);
    await nothingLeft();
  });

  if (SEES_SERVERS.includes(name)) {
    check('resume() refuses a device that another process serves', async (t) => {
      const { transport, folder, nothingLeft } = await begin(t);
      const server = new Server(t, name, folder, 'attach');
      await server.saysPath();
      const disk = new MemoryDisk(pagesOf(DISK_BYTES));
      await assert.rejects(transport.resume(ID, disk), { code: ErrorCodes.Busy });
      await assert.rejects(transport.attach(ID, disk), { code: ErrorCodes.Busy });
      await server.detached();
      await nothingLeft();
    });
  }

  for (const when of ['attach', 'detach', 'resume'] as const) {
    check(`servers are killed in the middle of ${when}`, async (t) => {
      const { transport, folder, takeAway, nothingLeft } = await begin(t);
      let whole = 0;
      for (let i = 0; i < KILLS_MIDWAY; i++) {
        let server = new Server(t, name, folder, 'attach');
        if (when !== 'attach') await server.saysPath();
        if (when === 'detach') server.detach();
        if (when === 'resume') {
          await server.kill();
          server = new Server(t, name, folder, 'resume');
        }
        assert.equal(await server.says(), when === 'detach' ? 'ends' : 'begins');
        await sleep(Math.random() * MIDWAY_MS);
        await server.kill();
        for (const orphan of await transport.orphans()) {
          if (orphan.path !== undefined) whole++;
          await takeAway(orphan);
        }
        await nothingLeft();
      }
      if (when === 'resume') assert.equal(whole, KILLS_MIDWAY);
      t.diagnostic(`${KILLS_MIDWAY} kills, ${whole} whole devices left`);
    });
  }
}
