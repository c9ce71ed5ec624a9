/**
 * Goal: an upgrade in place never breaks a running daemon, and the programs exist at every moment of it.
 * Method: a copy of the build as installation; its daemons run while all its files are removed or replaced.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { layerOf } from '../support/block-image.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { type Daemon, OutputDaemon } from '../support/output-daemon.js';
import { programArguments } from '../support/program.js';
import { trustCase } from '../support/trust-case.js';
import { pagesOf } from '../support/virtual-disks.js';

const skip = blockdUnfit === false ? undefined : blockdUnfit;
/** More devices than threads, so that the daemon starts one more thread after the upgrade. */
const DEVICES = 10;
const DISK_BYTES = 1 << 20;

/** A folder with only dist/bin, as a copied installation. */
async function installation(): Promise<string> {
  const root = await mkdtemp('/var/tmp/obdu.');
  install(root);
  return root;
}

function install(root: string): void {
  const [program = ''] = programArguments('obdctl');
  mkdirSync(join(root, 'dist'), { recursive: true });
  cpSync(join(realpathSync(program), '..'), join(root, 'dist', 'bin'), { recursive: true });
}

function program(root: string, name: Daemon): string[] {
  return [join(root, 'dist', 'bin', `${name}.js`)];
}

async function checkDevice(daemon: OutputDaemon, id: string, config: string, disk: Buffer) {
  const path = await daemon.attach(id, config);
  const read = execFileSync('dd', [`if=${path}`, 'bs=1M', 'count=1', 'status=none'], {
    maxBuffer: 2 * DISK_BYTES,
  });
  assert.ok(read.equals(disk), `${id} reads wrong bytes`);
}

for (const how of ['removed', 'replaced'] as const) {
  trustCase(
    'logging',
    `obd-blockd, its dist ${how} while it runs`,
    `${DEVICES} new images attach and read right, no thread of another version`,
    async () => {
      const root = await installation();
      const daemon = await OutputDaemon.start('obd-blockd', 'pipe', program(root, 'obd-blockd'));
      daemon.readLog();
      const disk = pagesOf(DISK_BYTES);
      const config = join(root, 'image.json');
      writeFileSync(
        join(root, 'layer'),
        layerOf(disk, () => true),
      );
      writeFileSync(config, JSON.stringify({ lowers: [{ file: join(root, 'layer') }] }));
      try {
        rmSync(join(root, 'dist'), { recursive: true });
        if (how === 'replaced') {
          install(root);
          const entry = join(root, 'dist', 'bin', 'worker-entry.js');
          writeFileSync(entry, 'process.kill(process.pid, "SIGKILL");\n');
        }
        for (let i = 0; i < DEVICES; i++) await checkDevice(daemon, `d${i}`, config, disk);
        for (let i = 0; i < DEVICES; i++) await daemon.detach(`d${i}`);
        await daemon.checkAlive();
        await daemon.stop();
        assert.ok(!daemon.log().includes('"level":"fatal"'), daemon.log());
        return `${DEVICES} devices, each read whole and right`;
      } catch (error) {
        await daemon.kill();
        throw error;
      } finally {
        await rm(root, { recursive: true });
      }
    },
    { skip },
  );
}

trustCase(
  'logging',
  'obd-snapshotter, its dist removed while it runs',
  'snapshots are made, the process stays',
  async () => {
    const root = await installation();
    const entry = program(root, 'obd-snapshotter');
    const daemon = await OutputDaemon.start('obd-snapshotter', 'pipe', entry);
    try {
      rmSync(join(root, 'dist'), { recursive: true });
      for (let i = 0; i < 5; i++) await daemon.logSomething();
      await daemon.checkAlive();
      await daemon.stop();
      return '5 snapshots made';
    } catch (error) {
      await daemon.kill();
      throw error;
    } finally {
      await rm(root, { recursive: true });
    }
  },
  { skip },
);

trustCase(
  'logging',
  'programs while the build replaces them, twice',
  'every start finds a whole program',
  async () => {
    const bundler = findUp('tools/bundle.js');
    const link = join(bundler, '../../dist/bin');
    let starts = 0;
    for (let build = 0; build < 2; build++) {
      const child = spawn(process.execPath, [bundler], { stdio: 'ignore' });
      const ended = once(child, 'exit');
      while (child.exitCode === null) {
        assert.ok(existsSync(join(link, 'obd-blockd.js')), 'there was a moment without dist/bin');
        const text = execFileSync(process.execPath, [join(link, 'obdctl.js'), '--version']);
        assert.match(text.toString(), /^\d+\./);
        starts++;
        await new Promise(setImmediate);
      }
      assert.deepEqual((await ended)[0], 0);
    }
    const manifest = await readFile(join(link, 'package.json'), 'utf8');
    assert.equal(JSON.parse(manifest).type, 'module');
    return `${starts} starts, all whole`;
  },
  { slow: true },
);

function findUp(relative: string): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, relative))) folder = join(folder, '..');
  return join(folder, relative);
}
