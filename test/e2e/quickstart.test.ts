/**
 * Goal: the quickstart keeps the README's promise: a container's first output after fetching less than half of its
 * image, and an unchanged machine after any end of the run.
 * Method: the script itself, run to its end, interrupted while everything is up, and with --keep; each time the test
 * looks for mounts, loop devices, processes and cgroups of its directory.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';

const SCRIPT = join(repositoryRoot(), 'scripts', 'quickstart.sh');
const FETCHED_SHARE_MAX = 0.45;
const RUN_MS_MAX = 300_000;
const unfit = process.geteuid?.() === 0 ? false : 'the quickstart needs root';

/** As the runs print it. Another user's quickstart at the same time has another directory. */
const DIRECTORY = /\/var\/tmp\/obd\.\w+/g;
const runs: Run[] = [];

interface Run {
  readonly child: ChildProcess;
  /** All of stdout and stderr so far. */
  text(): string;
  readonly status: Promise<number | null>;
}

function start(...args: string[]): Run {
  const child = spawn(SCRIPT, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: tmpdir() });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (piece: Buffer) => {
      text += piece.toString();
    });
  }
  const status = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  const run = { child, text: () => text, status };
  runs.push(run);
  return run;
}

async function seen(run: Run, pattern: RegExp): Promise<string> {
  for (;;) {
    const match = pattern.exec(run.text());
    if (match !== null) return match[1] ?? match[0];
    assert.equal(run.child.exitCode, null, `it ended before it said ${pattern}:\n${run.text()}`);
    await setTimeout(50);
  }
}

/** Leftovers that the runs so far must not have: mounts, loop devices, processes, cgroups and directories of these runs. */
async function left(): Promise<string[]> {
  const directories = new Set(runs.flatMap((run) => run.text().match(DIRECTORY) ?? []));
  assert.notEqual(directories.size, 0, 'no run has named its directory');
  const found = await Promise.all([...directories].map((directory) => tracesOf(directory)));
  return found.flat();
}

async function tracesOf(directory: string): Promise<string[]> {
  const lines = (text: string) => text.split('\n').filter((line) => line.includes(directory));
  const cgroup = `obd-ts-${basename(directory).replace('obd.', '')}`;
  const find = ['/sys/fs/cgroup', '-maxdepth', '4', '-type', 'd', '-name', cgroup];
  const { stdout: cgroups } = spawnSync('find', find, { encoding: 'utf8' });
  return [
    ...lines(readFileSync('/proc/self/mounts', 'utf8')),
    ...lines(
      execFileSync('losetup', ['--list', '--output', 'NAME,BACK-FILE'], { encoding: 'utf8' }),
    ),
    ...processesNaming(directory),
    ...cgroups.split('\n').filter((path) => path !== ''),
    ...(existsSync(directory) ? [directory] : []),
  ];
}

function processesNaming(text: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(pid)) continue;
    let words: string;
    try {
      words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    } catch {
      continue; // The process has ended since.
    }
    if (words.includes(text)) found.push(`process ${pid}: ${words}`);
  }
  return found;
}

describe('scripts/quickstart.sh', { skip: unfit, timeout: RUN_MS_MAX }, () => {
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'quickstart-test-'));
  });
  after(async () => {
    await rm(folder, { recursive: true });
  });

  test('shows the application starting from a fraction of its image', async (t) => {
    const json = join(folder, 'figures.json');
    const run = start('--json', json);
    assert.equal(await run.status, 0, run.text());
    assert.match(run.text(), /200 OK 120 bolts, 340 nuts[\s\S]*200 OK 120 bolts, 340 nuts/);
    const { lazy, full } = JSON.parse(readFileSync(json, 'utf8'));
    t.diagnostic(`lazy: ${JSON.stringify(lazy)}`);
    t.diagnostic(`full: ${JSON.stringify(full)}`);
    assert.ok(lazy.fetchedShare < FETCHED_SHARE_MAX, `fetched ${lazy.fetchedShare} of the image`);
    assert.equal(lazy.fetchedShare, Number((lazy.fetchedBytes / lazy.compressedBytes).toFixed(4)));
    assert.ok(lazy.requests > 0 && lazy.firstOutputSeconds > lazy.pullSeconds);
    assert.ok(full.fetchedBytes > full.compressedBytes, 'a full pull fetches all of it');
    assert.deepEqual(await left(), []);
  });

  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    test(`cleans up after itself on ${signal}`, async () => {
      const run = start();
      await seen(run, /200 OK/);
      run.child.kill(signal);
      assert.equal(await run.status, status, run.text());
      assert.deepEqual(await left(), []);
    });
  }

  test('--keep leaves it usable, and --stop takes it away', async () => {
    const kept = start('--keep');
    assert.equal(await kept.status, 0, kept.text());
    const directory = await seen(kept, /Left running in (\S+)\. /);
    const images = execFileSync('ctr', ['images', 'list', '--quiet'], {
      encoding: 'utf8',
      env: {
        ...process.env,
        CONTAINERD_ADDRESS: await seen(kept, /CONTAINERD_ADDRESS=(\S+)/),
        CONTAINERD_NAMESPACE: await seen(kept, /CONTAINERD_NAMESPACE=(\S+)/),
      },
    });
    assert.match(images, /\/sample:obd/);
    const stop = start('--stop', directory);
    assert.equal(await stop.status, 0, stop.text());
    assert.deepEqual(await left(), []);
  });

  test('fails for a bad option, and for a directory that it did not make', async () => {
    const bad = start('--no-such');
    assert.equal(await bad.status, 2);
    const foreign = start('--stop', folder);
    assert.equal(await foreign.status, 1);
    assert.match(foreign.text(), /not a directory that --keep left/);
    assert.ok(existsSync(folder));
  });
});

function repositoryRoot(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  return root;
}
