/**
 * Sets up a host as the documents say, in new mount, network and process namespaces, which
 * test/trust/documented-setup.test.ts creates. Mounts cover /etc, /opt, /var/lib and /run, so that files have the
 * documents' paths. The ExecStart of their units starts the daemons.
 *
 *     documented-host.js FOLDER MAJOR      prints the results as one line of JSON
 *
 * All writes go to FOLDER, which the caller removes. containerd is the first in PATH, of version MAJOR.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CriClient } from './cri-client.js';
import { documentedFiles } from './documented-files.js';
import { LayoutBuilder } from './oci-layout-builder.js';
import { runObdconv } from './run-obdconv.js';
import { obdctl } from './run-obdctl.js';
import { addProgram, goArchitecture, layerOf } from './runnable-image.js';
import { SnapshotsClient } from './snapshotter-process.js';

const [folder = '', major = ''] = process.argv.slice(2);
assert.ok(major === '1' || major === '2', 'FOLDER 1|2');
/** The documents' name and port; not loopback, and without TLS. */
const REGISTRY = 'registry.lan:5000';
const ADDRESS = '10.98.0.1';
const SERVED = 'containerd.io/snapshot/obd-ts.served';
const SNAPSHOTTER = '/run/obd-ts/snapshotter.sock';
const CONTAINERD = '/run/containerd/containerd.sock';
const START_MS_MAX = 60_000;
const GONE_MS_MAX = 30_000;
/** A container of the snapshotter's first name. */
const RUNNING = 'running';
const BALLAST_BYTES = 4 << 20;
const CHECKS = /^(containerd|plugin|transfer|CRI)/;

const run = promisify(execFile);
const root = repositoryRoot();
const children: ChildProcess[] = [];
const cgroup = `obd-ts-documented-${process.pid}-${Date.now()}`;

async function main(): Promise<void> {
  leaveOtherMounts();
  coverDirectories();
  for (const [path, text] of documentedFiles(root, major as '1' | '2')) writeUnder(path, text);
  const config = '/etc/containerd/config.toml';
  // Adds the version line, which the documents leave out.
  writeFileSync(config, `version = ${major === '1' ? 2 : 3}\n${readFileSync(config, 'utf8')}`);
  writeFileSync('/etc/hosts', `127.0.0.1 localhost\n${ADDRESS} registry.lan\n`);
  await startRegistry();
  const images = await pushImages(['rpull', 'cri', 'ctr', 'named']);
  for (const unit of ['obd-blockd', 'obd-snapshotter']) start(unit, execStart(unit));
  await appears(SNAPSHOTTER);
  await appears('/run/obd-ts/overlaybd.sock');
  start('containerd', ['containerd']);
  await appears(CONTAINERD);
  await answers();
  try {
    const seen = await look(images);
    process.stdout.write(`${JSON.stringify(seen)}\n`);
  } finally {
    await removeAll();
    for (const child of children.reverse()) await end(child);
    execFileSync('find', ['/sys/fs/cgroup', '-depth', '-type', 'd', '-name', cgroup, '-delete']);
  }
}

async function look(images: Readonly<Record<string, string>>): Promise<Record<string, string>> {
  const seen: Record<string, string> = {};
  const image = (name: string) => images[name] ?? '';
  const pulled = await obdctl('rpull', image('rpull'));
  assert.equal(pulled.status, 0, pulled.stderr);
  seen['rpull'] = await newlyServed();
  seen['run'] = await runs(image('rpull'), 'obd-ts');

  await new CriClient(CONTAINERD, `/${cgroup}`).pull(image('cri'));
  seen['CRI'] = await newlyServed();
  if (major === '2') {
    await pullByCtr(image('ctr'), 'obd-ts');
    seen['ctr'] = await newlyServed();
  }
  await run('ctr', ['images', 'pull', '--plain-http', image('plain')]);
  seen['overlayfs'] = await runs(image('plain'), 'overlayfs');
  seen['names'] = await otherName(image('named'), image('rpull'));
  const { stdout } = await obdctl('doctor', '--json');
  const checks = JSON.parse(stdout) as { what: string; state: string; found: string }[];
  const bad = checks.filter(({ what, state }) => CHECKS.test(what) && /warn|missing/.test(state));
  seen['doctor'] = bad.map(({ what, found }) => `${what}: ${found}`).join('; ') || 'ok';
  return seen;
}

/**
 * Pulls under the snapshotter's second name, runs, removes and collects garbage. The first name must keep its image and a
 * running container.
 */
async function otherName(image: string, firstImage: string): Promise<string> {
  const detached = ['--detach', '--snapshotter', 'obd-ts', '--cgroup', `/${cgroup}/${RUNNING}`];
  await run('ctr', ['run', ...detached, firstImage, RUNNING, '/bin/sleep', '1000']);
  const first = new SnapshotsClient(SNAPSHOTTER);
  // Garbage collection removes the snapshots of ended containers.
  const lasting = async () =>
    (await first.list())
      .filter(({ kind, name }) => kind === 'COMMITTED' || name.endsWith(RUNNING))
      .map(({ name }) => name);
  const before = await lasting();
  if (major === '2') {
    await pullByCtr(image, 'overlaybd');
  } else {
    const pulled = await obdctl('rpull', '--snapshotter', 'overlaybd', image);
    assert.equal(pulled.status, 0, pulled.stderr);
  }
  const second = new SnapshotsClient('/run/obd-ts/overlaybd.sock');
  assert.ok((await second.list()).every(({ labels }) => labels[SERVED] === 'lazy'));
  const output = await runs(image, 'overlaybd');
  await run('ctr', ['images', 'remove', '--sync', image]);
  await until(async () => (await second.list()).length === 0);
  const after = await lasting();
  first.close();
  second.close();
  assert.deepEqual(after, before);
  const exec = ['task', 'exec', '--exec-id', 'look', RUNNING, '/bin/cat', '/hello'];
  const { stdout } = await run('ctr', exec);
  return `${output} ${stdout.trim()}`;
}

const known = new Set<string>();

/** How the snapshots since the last call are served. */
async function newlyServed(): Promise<string> {
  const client = new SnapshotsClient(SNAPSHOTTER);
  const layers = (await client.list()).filter(({ kind }) => kind === 'COMMITTED');
  client.close();
  const fresh = layers.filter(({ name }) => !known.has(name));
  for (const { name } of fresh) known.add(name);
  assert.ok(fresh.length > 0, 'no snapshot came');
  return fresh.map(({ labels }) => labels[SERVED] ?? 'unknown').join(' ');
}

/** Through the transfer service of containerd 2. */
async function pullByCtr(image: string, snapshotter: string): Promise<void> {
  const hosts = ['--hosts-dir', '/etc/containerd/certs.d'];
  await run('ctr', ['images', 'pull', ...hosts, '--snapshotter', snapshotter, image]);
}

async function runs(image: string, snapshotter: string): Promise<string> {
  const id = `c${randomBytes(4).toString('hex')}`;
  const options = ['--rm', '--snapshotter', snapshotter, '--cgroup', `/${cgroup}/${id}`];
  const { stdout } = await run('ctr', ['run', ...options, image, id, '/bin/cat', '/hello']);
  return stdout.trim();
}

async function removeAll(): Promise<void> {
  await run('ctr', ['task', 'delete', '--force', RUNNING]).catch(() => {});
  await run('ctr', ['container', 'delete', RUNNING]).catch(() => {});
  for (const namespace of ['default', 'k8s.io']) {
    const { stdout } = await run('ctr', ['-n', namespace, 'images', 'list', '--quiet']);
    for (const name of stdout.split('\n').filter(Boolean)) {
      await run('ctr', ['-n', namespace, 'images', 'remove', '--sync', name]);
    }
  }
  await until(async () => (await obdctl('devices', '--json')).stdout.trim() === '[]');
}

/** Unmounts, in this namespace, the disks of tests that run at the same time: it would keep their devices. */
function leaveOtherMounts(): void {
  const targets = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((target) => target.startsWith('/var/tmp/obd'));
  for (const target of targets.reverse()) execFileSync('umount', ['--lazy', target]);
}

function coverDirectories(): void {
  const script = `
    set -e
    mount --make-rprivate /
    ip link set lo up
    ip address add ${ADDRESS}/32 dev lo
    mkdir "$1/over" "$1/containerd" "$1/obd-ts"
    mount -t tmpfs tmpfs "$1/over"
    for each in etc opt var/lib; do
      mkdir -p "$1/over/up/$each" "$1/over/work/$each"
      mount -t overlay overlay -o "lowerdir=/$each,upperdir=$1/over/up/$each,workdir=$1/over/work/$each" "/$each"
    done
    mount -t tmpfs tmpfs /run
    mkdir -p /opt/obd-ts /var/lib/containerd /var/lib/obd-ts /etc/containerd
    rm -rf /etc/containerd/* /etc/obd-ts /etc/nerdctl
    mount --bind "$2" /opt/obd-ts
    mount --bind "$1/containerd" /var/lib/containerd
    mount --bind "$1/obd-ts" /var/lib/obd-ts`;
  execFileSync('bash', ['-c', script, 'cover', folder, root], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

function writeUnder(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** The command line of a unit, as systemd would run it. */
function execStart(unit: string): string[] {
  const text = readFileSync(join(root, 'systemd', `${unit}.service`), 'utf8');
  return /^ExecStart=(.+)$/m.exec(text)?.[1]?.split(' ') ?? [];
}

function start(name: string, [program = '', ...args]: readonly string[]): void {
  const log = openSync(join(folder, `${name}.log`), 'a');
  children.push(spawn(program, args, { stdio: ['ignore', log, log] }));
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

async function startRegistry(): Promise<void> {
  const settings = {
    version: '0.1',
    storage: { filesystem: { rootdirectory: join(folder, 'registry') } },
    http: { addr: ':5000' },
  };
  writeFileSync(join(folder, 'registry.json'), JSON.stringify(settings));
  start('registry', ['docker-registry', 'serve', join(folder, 'registry.json')]);
  await until(async () => (await fetch(`http://${ADDRESS}:5000/v2/`)).ok);
}

/** @returns References at REGISTRY: `plain` is an unconverted image, each name a converted one. */
async function pushImages(names: readonly string[]): Promise<Record<string, string>> {
  const layout = new LayoutBuilder(join(folder, 'layout'));
  const programs = layerOf(join(folder, 'programs'), (at) => {
    for (const program of ['/bin/cat', '/bin/sleep']) addProgram(at, program);
  });
  const references: Record<string, string> = {};
  for (const name of ['plain', ...names]) {
    const hello = layerOf(join(folder, name), (at) => {
      writeFileSync(join(at, 'hello'), `${name}\n`);
      writeFileSync(join(at, 'ballast'), randomBytes(BALLAST_BYTES));
    });
    // Distinct layers: a layer that another client has pulled would prove nothing.
    const layers = name === 'plain' ? [programs, hello] : [hello, programs];
    layout.tag(name, layout.addImage(layers, goArchitecture()));
    const source = `oci:${layout.directory}:${name}`;
    references[name] = `${REGISTRY}/${name}:1`;
    if (name === 'plain') {
      const copy = ['--insecure-policy', 'copy', '--quiet', '--dest-tls-verify=false', source];
      await run('skopeo', [...copy, `docker://${references[name]}`]);
      continue;
    }
    const target = `docker://${references[name]}`;
    const { status, stderr } = await runObdconv(['--plain-http', REGISTRY, source, target]);
    assert.equal(status, 0, stderr);
  }
  return references;
}

async function answers(): Promise<void> {
  await until(async () => (await run('ctr', ['version'])).stdout !== '');
}

async function appears(path: string): Promise<void> {
  await until(async () => existsSync(path), START_MS_MAX);
}

async function until(isDone: () => Promise<boolean>, msMax = GONE_MS_MAX): Promise<void> {
  const deadline = Date.now() + msMax;
  for (;;) {
    const done = await isDone().catch(() => false);
    if (done) return;
    assert.ok(Date.now() < deadline, `not within ${msMax} ms: ${isDone}`);
    await setTimeout(50);
  }
}

function repositoryRoot(): string {
  let at = import.meta.dirname;
  while (!existsSync(join(at, 'package.json'))) at = dirname(at);
  return at;
}

await main();
