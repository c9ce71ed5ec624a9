/**
 * Goal: a device outlives failures around it, or reports that it did not; removing a device never waits for a registry or
 * a process without a limit and a reason.
 * Method: the real daemon, its fuse transport, obdctl and docker-registry; the tests kill processes and stop the registry.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { listHolders } from '../../src/blockdev/fuse/fuse-file.js';
import {
  MountedImage,
  mountedImageUnfit,
  REPOSITORY,
  SCATTERED,
} from '../support/mounted-image.js';
import { obdctl } from '../support/run-obdctl.js';
import { trustCase } from '../support/trust-case.js';

const skip = mountedImageUnfit;
/** A umount that waits for the registry takes `read_deadline`, 600 s. */
const SOON_MS = 10_000;

async function mounted(t: TestContext, config = ''): Promise<MountedImage> {
  const image = await MountedImage.start(t, config);
  const { status, stderr } = await image.mount();
  assert.equal(status, 0, stderr);
  return image;
}

function start(t: TestContext, command: string, ...args: readonly string[]): ChildProcess {
  const child = spawn(command, args, { stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));
  return child;
}

/** Resolves when the process waits for missing bytes. */
async function waiting(child: ChildProcess): Promise<void> {
  await sleep(500);
  assert.equal(child.exitCode, null, 'it does not wait');
}

async function killHolder(image: MountedImage): Promise<void> {
  const { id } = await image.device();
  const file = join(image.daemon.stateDirectory, 'devices/fuse', id, 'disk');
  const [pid] = (await listHolders()).get(file) ?? [];
  assert.ok(pid !== undefined);
  process.kill(pid, 'SIGKILL');
}

async function umountSoon(image: MountedImage): Promise<number> {
  const startedMs = performance.now();
  const { status, stderr } = await image.umount();
  const ms = Math.round(performance.now() - startedMs);
  assert.equal(status, 0, stderr);
  assert.ok(ms < SOON_MS, `it took ${ms} ms`);
  return ms;
}

trustCase(
  'limits',
  'a backup reads everything below the state directory',
  'no file of the size of an image there, in no mount namespace, and nothing fetched',
  async (t) => {
    const image = await mounted(t);
    const { stateDirectory, directory } = image.daemon;
    const before = await image.device();
    const large = readdirSync(stateDirectory, { recursive: true, encoding: 'utf8' })
      .filter((name) => !name.startsWith('cache'))
      .filter((name) => statSync(join(stateDirectory, name)).size > 1 << 20);
    assert.deepEqual(large, []);
    execFileSync('sh', [
      '-c',
      'tar -c "$0" | cat >/dev/null; grep -r nothing "$0" || :',
      directory,
    ]);
    for (const pid of readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))) {
      let mounts = '';
      try {
        mounts = readFileSync(`/proc/${pid}/mountinfo`, 'utf8');
      } catch {
        continue;
      }
      assert.ok(!mounts.includes(`${stateDirectory}/devices`), `process ${pid} has it mounted`);
    }
    const after = await image.device();
    assert.equal(after.fetchedBytes, before.fetchedBytes);
    image.check('a');
    await image.daemon.end('SIGKILL');
    await image.daemon.restart();
    image.check('b');
    await umountSoon(image);
    return 'nothing fetched; read right after kill -9 and restart of the daemon';
  },
  { skip },
);

trustCase(
  'waiting',
  'the holder of a device is killed',
  'state dead within a second, an alarm, and the next mount of the image reads right',
  async (t) => {
    const image = await mounted(t);
    image.check('a');
    await killHolder(image);
    await sleep(1_000);
    const dead = await image.device();
    assert.equal(dead.state, 'dead');
    assert.match(dead.problem, /fuse-file.*restart the containers/);
    const table = await obdctl('devices', '--blockd', image.daemon.socket);
    assert.match(table.stdout, / dead /);
    const alarm = await image.daemon.logged(({ msg }) => msg === 'device is dead');
    assert.deepEqual([alarm.level, alarm['id']], ['error', dead.id]);
    // As the snapshotter does for the next container, while others still mount the dead device.
    const next = await image.daemon.client.attach(dead.id, dead.configPath);
    assert.notEqual(next.path, dead.path);
    assert.equal(next.state, 'attached');
    await umountSoon(image);
    assert.equal((await image.mount()).status, 0);
    for (const name of image.files.keys()) image.check(name);
    await umountSoon(image);
    return `dead, alarm, replaced ${dead.path} by ${next.path}`;
  },
  { skip },
);

trustCase(
  'waiting',
  'the holder of a device is killed while no daemon runs',
  'the next daemon starts, logs an alarm and clears the device away',
  async (t) => {
    const image = await mounted(t);
    await image.daemon.end('SIGKILL');
    const [pid] = [...(await listHolders())].find(([file]) =>
      file.startsWith(image.daemon.stateDirectory),
    )![1];
    process.kill(pid!, 'SIGKILL');
    await image.daemon.restart();
    await image.daemon.logged(({ msg }) => msg === 'device is dead, removing it');
    await umountSoon(image);
    assert.equal((await image.mount()).status, 0);
    image.check('c');
    await umountSoon(image);
    return 'alarm, cleared, mounted again';
  },
  { skip },
);

for (const [what, program, ...words] of [
  ['reads a file', 'cat', 'b'],
  [
    'has a file mapped',
    'python3',
    '-c',
    'import mmap,sys;f=open(sys.argv[1],"rb");mmap.mmap(f.fileno(),0,prot=1)[5<<20]',
    'b',
  ],
] as const) {
  trustCase(
    'waiting',
    `a process that ${what} is killed while the registry is away`,
    'umount refuses before, takes some seconds after, and nothing is left',
    async (t) => {
      const image = await mounted(t);
      image.check('a');
      await image.registry.goAway();
      const path = join(image.target, words.at(-1)!);
      const reader = start(t, program, ...words.slice(0, -1), path);
      await waiting(reader);
      const refused = await image.umount();
      assert.equal(refused.status, 1);
      assert.match(refused.stderr, new RegExp(`in use by process ${reader.pid} `));
      await waiting(reader);
      reader.kill('SIGKILL');
      const ms = await umountSoon(image);
      await image.assertNothingLeft();
      return `refused naming process ${reader.pid}, then ${ms} ms`;
    },
    { skip, slow: program !== 'cat' },
  );
}

trustCase(
  'waiting',
  "a process is killed while it reads a file's extents, which no signal ends, and the registry is away",
  'umount takes some seconds, and nothing is left',
  async (t) => {
    const image = await mounted(t);
    await image.registry.goAway();
    const reader = start(t, 'tail', '-c', '100', join(image.target, SCATTERED));
    await waiting(reader);
    reader.kill('SIGKILL');
    const ms = await umountSoon(image);
    await image.assertNothingLeft();
    return `${ms} ms`;
  },
  { skip },
);

trustCase(
  'waiting',
  'a read waits in another mount of a device that is unmounted here',
  'umount here fails with the reason, the waiting read does not, and is answered later',
  async (t) => {
    const image = await mounted(t);
    await image.registry.goAway();
    const path = join(image.target, 'b');
    // The new namespace would keep the devices of tests that run at the same time.
    const others = `findmnt -rno TARGET | grep ^/var/tmp/obd | grep -vF ${image.target} | xargs -r umount -l`;
    const wait = `until [ -e ${image.directory}/go ]; do sleep 0.1; done`;
    const command = `${others}; ${wait}; exec cat ${path}`;
    const other = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', command]);
    t.after(() => other.kill('SIGKILL'));
    const chunks: Buffer[] = [];
    other.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    const ended = once(other, 'close');
    await sleep(500);
    execFileSync('touch', [join(image.directory, 'go')]);
    await sleep(1000);
    const refused = await image.umount();
    assert.equal(refused.status, 1);
    assert.match(
      refused.stderr,
      new RegExp(`Unmounted .* its device stays.* process ${other.pid} \\(cat\\).*obdctl umount`),
    );
    await image.registry.comeBack();
    const [code] = await ended;
    assert.equal(code, 0);
    assert.ok(Buffer.concat(chunks).equals(image.files.get('b')!));
    await umountSoon(image);
    return `"${refused.stderr.trim().slice(0, 160)}", then all bytes`;
  },
  { skip, timeout: 180_000 },
);

trustCase(
  'waiting',
  'obdctl mount by tag and by digest while the registry is away',
  'mounts from the cache with a warning that names digest and age; an image that is not known fails',
  async (t) => {
    const image = await mounted(t);
    for (const name of image.files.keys()) image.check(name);
    await umountSoon(image);
    await image.registry.goAway();
    for (const reference of [
      image.reference,
      `${image.registry.host}/${REPOSITORY}@${image.digest}`,
    ]) {
      const { status, stderr } = await image.mount(reference);
      assert.equal(status, 0, stderr);
      assert.match(
        stderr,
        new RegExp(`warning: the registry is unavailable .*${image.digest}, 0 min ago`),
      );
      for (const name of image.files.keys()) image.check(name);
      await umountSoon(image);
    }
    const unknown = await image.mount(`${image.registry.host}/${REPOSITORY}:other`);
    assert.equal(unknown.status, 1);
    await image.registry.comeBack();
    const url = `http://${image.registry.host}/v2/${REPOSITORY}/manifests/obd`;
    await image.assertNothingLeft();
    const back = await image.mount();
    assert.deepEqual([back.status, back.stderr], [0, '']);
    await umountSoon(image);
    // The registry answers that the tag is gone: no fallback.
    const links = join(image.registry.directory, 'data/docker/registry/v2/repositories');
    execFileSync('rm', ['-r', join(links, REPOSITORY, '_manifests')]);
    assert.equal((await fetch(url)).status, 404);
    const gone = await image.mount();
    assert.deepEqual([gone.status, /warning/.test(gone.stderr)], [1, false], gone.stderr);
    return 'tag and digest mounted and read right; unknown and deleted tags refused';
  },
  { skip, timeout: 180_000 },
);
