/**
 * Goal: whenever the process behind a device is killed, whoever uses the device sees nothing but a delay, and of a device
 * that was about to come or go nothing stays that the next process does not find.
 * Method: a process that serves a file by one transport is killed under fio, OBD_KILLS times, and at random moments of
 * attach and detach; this process looks at what is left.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { TransportName } from '../../src/blockdev/transport.js';
import { FioLoad, prepareFile } from '../support/fio-load.js';
import { kernelObjects, watchBy } from '../support/kernel-transports.js';

const run = promisify(execFile);
const KILLS = Number(process.env['OBD_KILLS'] ?? 2);
const DISK_BYTES = 4 << 20;
const SERVER_PROCESS = join(
  import.meta.dirname,
  `../support/transport-server-process${import.meta.filename.slice(-3)}`,
);

class Server {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(t: TestContext, name: TransportName, folder: string, action: 'attach' | 'resume') {
    const args = [SERVER_PROCESS, name, folder, join(folder, 'disk'), action];
    this.#child = spawn(process.execPath, [...process.execArgv, ...args], {
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

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

async function makeFolder(t: TestContext, name: TransportName): Promise<string> {
  const folder = await mkdtemp('/var/tmp/obd-kills-');
  t.after(async () => {
    // So that nobody waits for a device whose test failed.
    for (const { id } of await watchBy(name, folder).survivors()) {
      await watchBy(name, folder).clear(id);
    }
    await rm(folder, { recursive: true });
  });
  await prepareFile(join(folder, 'disk'), DISK_BYTES);
  return folder;
}

/** @param missing - Why this host cannot run it. */
export function serverKills(name: TransportName, missing: string | undefined): void {
  const options = {
    timeout: 120_000 + KILLS * 60_000,
    ...(missing !== undefined && { skip: missing }),
  };

  test(`${name}: servers are killed under load`, options, async (t) => {
    const folder = await makeFolder(t, name);
    const before = await kernelObjects(name, folder);
    let server = new Server(t, name, folder, 'attach');
    const path = await server.saysPath();
    const load = new FioLoad(path, folder, DISK_BYTES, { writes: name !== 'fuse' });
    for (let i = 0; i < KILLS; i++) {
      await sleep(500 + Math.random() * 1500);
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
    const watcher = watchBy(name, folder);
    assert.deepEqual(await watcher.survivors(), [{ id: 'victim', path }]);
    await watcher.clear('victim');
    assert.deepEqual(await kernelObjects(name, folder), before);
  });

  for (const when of ['attach', 'detach'] as const) {
    test(`${name}: servers are killed in the middle of ${when}`, options, async (t) => {
      const folder = await makeFolder(t, name);
      const before = await kernelObjects(name, folder);
      const watcher = watchBy(name, folder);
      let whole = 0;
      for (let i = 0; i < KILLS; i++) {
        const server = new Server(t, name, folder, 'attach');
        if (when === 'attach') {
          assert.equal(await server.says(), 'begins');
        } else {
          await server.saysPath();
          server.detach();
          assert.equal(await server.says(), 'ends');
        }
        await sleep(Math.random() * 300);
        await server.kill();
        for (const survivor of await watcher.survivors()) {
          if (survivor.path !== undefined) whole++;
          await watcher.clear(survivor.id);
        }
        assert.deepEqual(await watcher.survivors(), []);
        assert.deepEqual(await kernelObjects(name, folder), before);
        assert.deepEqual(await readdir(join(folder, 'devices')).catch(() => []), []);
      }
      t.diagnostic(`${KILLS} kills, ${whole} whole devices left`);
    });
  }
}
