/**
 * tcmu-runner, whose qcow handler opens a raw file too, as the peer of the tcmu transport: a file as a SCSI disk
 * through the kernel's target, set up in configfs and taken down again. It needs a system bus, so a private one is
 * started.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  rmdir,
  stat,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../src/errors.js';

const TARGET = '/sys/kernel/config/target';
const NAME = 'obd-bench';
const WWN = 'naa.50014050bd000001';
const START_MS = 60_000;

interface Disk {
  readonly target: { readonly device: string };
  pids(): Promise<readonly number[]>;
  stop(): Promise<void>;
}

/** @throws {ObdError} `Host` for a missing module or program, `Io`. The completed steps are undone. */
export async function startTcmuRunner(raw: string): Promise<Disk> {
  if (!existsSync(TARGET) || !existsSync('/sys/module/target_core_user')) {
    const remedy = '`modprobe target_core_user tcm_loop` brings it';
    throw new ObdError(ErrorCodes.Host, `the kernel's target is not there; ${remedy}`);
  }
  const undo: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const step of undo.reverse()) await step();
  };
  try {
    const runner = await startRunner(undo);
    const device = await attach(raw, undo);
    return { target: { device }, pids: async () => [runner.pid!], stop };
  } catch (error) {
    await stop();
    if (error instanceof ObdError) throw error;
    throw new ObdError(ErrorCodes.Io, `tcmu-runner: ${error}`, {}, error);
  }
}

async function startRunner(undo: (() => Promise<unknown>)[]): Promise<ChildProcess> {
  const folder = await mkdtemp('/tmp/obd-bench-bus-');
  undo.push(() => rm(folder, { recursive: true }));
  const address = `unix:path=${join(folder, 'bus')}`;
  const config = join(folder, 'bus.conf');
  const policy =
    '<policy context="default"><allow send_destination="*"/><allow own="*"/><allow user="*"/></policy>';
  await writeFile(
    config,
    `<busconfig><type>system</type><listen>${address}</listen><auth>EXTERNAL</auth>${policy}</busconfig>`,
  );
  await launch('dbus-daemon', [`--config-file=${config}`, '--nofork'], {}, undo);
  await until('dbus-daemon', async () => existsSync(join(folder, 'bus')));
  const environment = { DBUS_SYSTEM_BUS_ADDRESS: address };
  const runner = await launch('tcmu-runner', [`--tcmu-log-dir=${folder}`], environment, undo);
  // It gives no sign of being ready; when it starts, it finds the disks that were enabled before.
  await sleep(1000);
  return runner;
}

async function launch(
  program: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  undo: (() => Promise<unknown>)[],
): Promise<ChildProcess> {
  const env = { ...process.env, ...environment };
  const child = spawn(program, args, { stdio: 'ignore', env });
  await once(child, 'spawn').catch(() => {
    throw new ObdError(ErrorCodes.Host, `${program} is not installed`);
  });
  undo.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  });
  return child;
}

async function attach(raw: string, undo: (() => Promise<unknown>)[]): Promise<string> {
  const hba = join(TARGET, 'core', 'user_7391');
  const core = join(hba, NAME);
  const makeFolder = async (path: string) => {
    await mkdir(path);
    undo.push(() => rmdir(path));
  };
  await makeFolder(hba);
  await makeFolder(core);
  const { size } = await stat(raw);
  await writeFile(join(core, 'control'), `dev_config=qcow/${raw}`);
  await writeFile(join(core, 'control'), `dev_size=${size}`);
  await writeFile(join(core, 'enable'), '1');
  const fabric = join(TARGET, 'loopback');
  if (!existsSync(fabric)) await makeFolder(fabric);
  await makeFolder(join(fabric, WWN));
  const portal = join(fabric, WWN, 'tpgt_1');
  await makeFolder(portal);
  await writeFile(join(portal, 'nexus'), WWN.replace(/1$/, '2'));
  const lun = join(portal, 'lun', 'lun_0');
  await makeFolder(lun);
  const link = join(lun, 'disk');
  await symlink(core, link);
  undo.push(() => unlink(link));
  const address = (await readFile(join(portal, 'address'), 'utf8')).trim();
  let device: string | undefined;
  await until('the disk of tcmu-runner', async () => {
    const blocks = `/sys/class/scsi_device/${address}:0/device/block`;
    device = (await readdir(blocks).catch(() => []))[0];
    return device !== undefined && existsSync(`/dev/${device}`);
  });
  return `/dev/${device}`;
}

async function until(what: string, done: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + START_MS;
  while (!(await done())) {
    if (performance.now() > deadline) {
      throw new ObdError(ErrorCodes.Io, `${what} does not appear`);
    }
    await sleep(50);
  }
}
