/**
 * Goal: `obdctl record` makes every other node start an image by one hot blob; what it publishes can be listed and deleted.
 * Method: two nodes, each with containerd, obd-snapshotter and obd-blockd, and one registry, which has no referrers API. The commands are those of docs/load-order.md.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlockdClient, type Device } from '../../src/blockd/blockd-client.js';
import { commandDigest } from '../../src/load-order/command-line.js';
import { parseLoadOrder } from '../../src/load-order/load-order.js';
import type { ImageManifest } from '../../src/oci/manifest.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { LayoutBuilder } from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { type Finished, obdctl, startObdctl } from '../support/run-obdctl.js';
import { addProgram, goArchitecture, layerOf } from '../support/runnable-image.js';
import { mountsIn } from '../support/snapshotter-process.js';

const BALLAST_BYTES = 8 << 20;
const READ_BYTES = 1 << 20;
const SCRIPT = 'head -c 1048576 /ballast | wc -c; id -u; pwd; echo ready $COLOR; sleep 60';
/** Reads much less. */
const WORKER = 'id -u; echo done; sleep 60';
const PAGE_BYTES = 4096;

interface Listed {
  readonly artifact: string;
  readonly name: string;
  readonly command: string;
  readonly kind: string;
  readonly starts: number;
  readonly pages: number;
  readonly documentBytes: number;
  readonly hotBytes: number;
}

describe('obdctl record', { skip: unfit || blockdUnfit, timeout: 300_000 }, () => {
  let folder: string;
  let builder: PrivateContainerd;
  let image: string;
  let plain: string;
  const undo: (() => Promise<void>)[] = [];

  before(async () => {
    folder = mkdtempSync('/var/tmp/obdi.');
    undo.push(async () => rmSync(folder, { recursive: true }));
    builder = await PrivateContainerd.start();
    undo.push(() => builder.stop());
    await builder.startObd();
    const layout = new LayoutBuilder(join(folder, 'layout'));
    const source = layerOf(join(folder, 'root'), (root) => {
      for (const program of [
        '/bin/sh',
        '/usr/bin/head',
        '/usr/bin/wc',
        '/usr/bin/id',
        '/bin/sleep',
      ])
        addProgram(root, program);
      mkdirSync(join(root, 'etc'));
      mkdirSync(join(root, 'srv'));
      writeFileSync(
        join(root, 'etc/passwd'),
        'root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\n',
      );
      writeFileSync(join(root, 'ballast'), randomBytes(BALLAST_BYTES));
    });
    layout.tag('plain', layout.addImage([source], goArchitecture()));
    plain = await builder.push(`${layout.directory}:plain`, 'sample:plain');
    image = `${builder.registry}/sample:obd`;
    const conversion = await runObdconv([
      '--no-predict',
      `oci:${layout.directory}:plain`,
      `docker://${image}`,
    ]);
    assert.equal(conversion.status, 0, conversion.stderr);
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  const onNode = ({ directory, socket, namespace }: PrivateContainerd) => [
    ...['--address', socket, '--namespace', namespace],
    ...['--blockd', join(directory, 'blockd.sock'), '--plain-http'],
  ];
  const record = (...args: string[]) => obdctl('record', ...onNode(builder), ...args);
  const start = ['--entrypoint', JSON.stringify(['/bin/sh', '-c', SCRIPT])];
  const list = async () => {
    const { status, stdout, stderr } = await obdctl(
      'record',
      '--plain-http',
      '--list',
      '--json',
      image,
    );
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout) as Listed[];
  };
  async function devices({ directory }: PrivateContainerd): Promise<Device[]> {
    const client = new BlockdClient(join(directory, 'blockd.sock'));
    try {
      return await client.list();
    } finally {
      client.close();
    }
  }
  const fails = ({ status, stdout, stderr }: Finished, code: number, message: RegExp) => {
    assert.equal(status, code, stdout + stderr);
    assert.match(stderr, message);
  };
  const nothingRuns = async () => {
    assert.deepEqual(await builder.ctr('containers', 'ls', '-q'), '');
    assert.deepEqual(await builder.ctr('leases', 'ls', '-q'), '');
    assert.deepEqual(await builder.ctr('images', 'ls', '-q'), '');
    assert.deepEqual(await devices(builder), []);
  };

  test('without publishing it writes the pages that the container read to a file', async () => {
    const output = join(folder, 'order.json');
    const run = await record(
      ...['--no-publish', '--output', output, '--until-output', '^ready blue$'],
      ...['--env', 'COLOR=blue', '--user', 'app', '--cwd', '/srv', ...start],
      image,
    );
    assert.equal(run.status, 0, run.stderr);
    assert.match(
      run.stdout,
      /^Recorded .*\/sample:obd: \d+ pages, .*; hot blob .*; not published\n$/,
    );
    assert.match(run.stderr, /^1048576\n1234\n\/srv\nready blue$/m);
    const order = parseLoadOrder(readFileSync(output), output);
    assert.deepEqual([order.kind, order.starts], ['recorded', 1]);
    const read = order.runs.reduce((sum, { count }) => sum + count, 0);
    const certain = READ_BYTES / PAGE_BYTES;
    assert.ok(read > certain && read < BALLAST_BYTES / PAGE_BYTES, `${read} pages`);
    assert.deepEqual(await list(), []);
    await nothingRuns();
  });

  test('publishes load order and hot blob at the fall-back tag', async () => {
    const run = await record('--until-output', '^ready', ...start, image);
    assert.equal(run.status, 0, run.stderr);
    assert.match(
      run.stdout,
      /: \d+ pages, .*; published sha256:[0-9a-f]{64} of 1 start, \d+ pages, hot blob /,
    );
    const [found, ...others] = await list();
    assert.ok(found !== undefined && others.length === 0);
    assert.deepEqual([found.kind, found.name, found.starts], ['recorded', '', 1]);
    assert.equal(found.command, commandDigest(['/bin/sh', '-c', SCRIPT]));
    assert.ok(found.pages > READ_BYTES / PAGE_BYTES && found.hotBytes > READ_BYTES);
    const table = await obdctl('record', '--plain-http', '--list', image);
    assert.match(
      table.stdout,
      /^PLATFORM +NAME +COMMAND +KIND +STARTS +PAGES +DOCUMENT +HOT BLOB +ARTIFACT\n/,
    );
    await nothingRuns();
  });

  test('another node with an empty cache starts by the hot pages', async (t) => {
    const node = await PrivateContainerd.start();
    try {
      await node.startObd();
      const { socket, namespace } = node;
      const where = ['--address', socket, '--namespace', namespace, '--plain-http'];
      const pulled = await obdctl('rpull', ...where, image);
      assert.equal(pulled.status, 0, pulled.stderr);
      const earlier = (await builder.requests()).length;
      const run = ['run', '--rm', '--snapshotter', 'obd-ts'];
      await node.ctr('run', '--detach', ...run.slice(2), image, 'c', '/bin/sh', '-c', SCRIPT);
      let device: Device | undefined;
      for (let turn = 0; turn < 50; turn++) {
        [device] = await devices(node);
        if (device !== undefined && device.hotPagesRead > READ_BYTES / PAGE_BYTES) break;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      const requests = (await builder.requests()).slice(earlier);
      t.diagnostic(JSON.stringify({ ...device, requests: requests.length }));
      assert.ok(device !== undefined && device.hotPages > READ_BYTES / PAGE_BYTES);
      assert.ok(device.hotPagesRead > READ_BYTES / PAGE_BYTES, `${device.hotPagesRead} read`);
    } finally {
      await node.stop();
    }
  });

  test('a start of another command line has its own, which a label chooses', async (t) => {
    const worker = ['--entrypoint', JSON.stringify(['/bin/sh', '-c', WORKER])];
    const run = await record('--until-output', '^done', ...worker, image);
    assert.equal(run.status, 0, run.stderr);
    const listed = await list();
    const commands = [SCRIPT, WORKER].map((script) => commandDigest(['/bin/sh', '-c', script]));
    assert.deepEqual(listed.map(({ command }) => command).toSorted(), commands.toSorted());
    const node = await PrivateContainerd.start();
    try {
      await node.startObd();
      const { socket, namespace } = node;
      const where = ['--address', socket, '--namespace', namespace, '--plain-http'];
      const label = `containerd.io/snapshot/obd-ts.command=/bin/sh -c ${WORKER}`;
      const pulled = await obdctl('rpull', ...where, '--snapshotter-label', label, image);
      assert.equal(pulled.status, 0, pulled.stderr);
      const made = ['--snapshotter', 'obd-ts', '--snapshotter-label', label];
      await node.ctr('run', '--detach', ...made, image, 'c', '/bin/sh', '-c', WORKER);
      let device: Device | undefined;
      for (let turn = 0; turn < 50; turn++) {
        [device] = await devices(node);
        if (device !== undefined && device.hotPagesRead > 0) break;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      const { pages } = listed.find(({ command }) => command === commands[1])!;
      t.diagnostic(JSON.stringify({ pages, hotPages: device?.hotPages }));
      assert.ok(device !== undefined && device.hotPagesRead > 0);
      assert.ok(Math.abs(device.hotPages - pages) <= 2, `${device.hotPages} pages`);
      const [{ pages: other }] = listed.filter(({ command }) => command === commands[0]) as [
        Listed,
      ];
      assert.ok(other > pages + READ_BYTES / PAGE_BYTES / 2);
    } finally {
      await node.stop();
    }
  });

  test('pushes a tag with the trace layer of overlaybd, which a node replays', async () => {
    const traced = `${builder.registry}/sample:traced`;
    const options = ['--no-publish', '--trace-layer', traced, '--json', '--until-output', '^ready'];
    const run = await record(...options, ...start, image);
    assert.equal(run.status, 0, run.stderr);
    const { pages, traced: digest } = JSON.parse(run.stdout);
    const fetched = await fetch(`http://${builder.registry}/v2/sample/manifests/traced`, {
      headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
    });
    assert.equal(fetched.headers.get('docker-content-digest'), digest);
    const { layers } = (await fetched.json()) as ImageManifest;
    assert.equal(layers.length, 2);
    const top = layers[1]?.annotations ?? {};
    assert.equal(top['containerd.io/snapshot/overlaybd/acceleration-layer'], 'yes');
    const node = await PrivateContainerd.start();
    try {
      await node.startObd();
      const { socket, namespace, directory } = node;
      const where = ['--address', socket, '--namespace', namespace, '--plain-http'];
      const pulled = await obdctl('rpull', ...where, traced);
      assert.equal(pulled.status, 0, pulled.stderr);
      const made = ['run', '--detach', '--snapshotter', 'obd-ts', traced, 'c'];
      await node.ctr(...made, '/bin/sh', '-c', SCRIPT);
      let replayed: string | undefined;
      for (let turn = 0; turn < 100 && replayed === undefined; turn++) {
        const log = readFileSync(join(directory, 'blockd.log'), 'utf8');
        replayed = log.split('\n').find((line) => line.includes('trace replayed'));
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      const { ended, fetchedBytes } = JSON.parse(replayed ?? '{}');
      assert.equal(ended, 'complete');
      // The pages are incompressible for the most part.
      assert.ok(fetchedBytes > READ_BYTES / 2 && fetchedBytes < BALLAST_BYTES, `${fetchedBytes}`);
      const [device] = await devices(node);
      assert.equal(device?.layers, 1);
      assert.ok(pages > READ_BYTES / PAGE_BYTES);
    } finally {
      await node.stop();
    }
    const again = await record('--trace-layer', `${builder.registry}/sample:more`, traced);
    fails(again, 1, /it has a trace layer/);
    const other = await record(...start, traced);
    fails(other, 1, /it has a trace layer.* record the image that was given it/);
    assert.doesNotMatch(other.stderr, /Layer 1/);
    fails(await record('--trace-layer', image, image), 2, /name another tag of/);
    fails(await record('--trace-layer', 'other.invalid/x:y', image), 2, /name another tag of/);
  });

  test('refuses what it cannot record, with the remedy', async () => {
    fails(await record('--until-output', '(', image), 2, /Cannot use --until-output \(: /);
    fails(await record('--until-http', 'http://127.0.0.1:1/', image), 2, /needs --net host/);
    fails(await record('--time', '0', image), 2, /--time is 0/);
    fails(await record('--user', '1:2:3', image), 2, /--user 1:2:3: it is no user; write USER/);
    fails(await record('--cwd', 'srv', image), 2, /--cwd srv: it is no absolute path/);
    fails(await record(plain), 1, /no overlaybd image.* convert it with obdconv/);
    const failing = ['--entrypoint', '["/bin/sh", "-c", "exit 3"]'];
    fails(
      await record(...failing, image),
      1,
      /the container ended with status 3; nothing is publi/,
    );
    await nothingRuns();
    const where = ['--address', builder.socket, '--namespace', builder.namespace];
    assert.equal((await obdctl('rpull', ...where, '--plain-http', image)).status, 0);
    await builder.ctr(
      ...['run', '--detach', '--snapshotter', 'obd-ts', image, 'held', '/bin/sleep', '60'],
    );
    fails(
      await record(...start, image),
      1,
      /a device of it is attached \(\/dev\/\S+, mounted at .*\/held\/.*remove the image's containers/,
    );
    await builder.ctr('tasks', 'kill', '--signal', 'SIGKILL', 'held');
    assert.equal((await list()).length, 2);
  });

  test('removes the mount and the container of a killed one, and names what holds the device', async () => {
    await builder.ctr('containers', 'delete', 'held').catch(() => {});
    await builder.ctr('images', 'rm', '--sync', image);
    const { child, finished } = startObdctl(
      ...['record', ...onNode(builder), '--no-publish'],
      ...[...start, image],
    );
    const foldersOf = (pid: number | undefined) =>
      readdirSync(tmpdir())
        .filter((name) => name.startsWith('obd-record-'))
        .filter((name) => {
          const owner = join(tmpdir(), name, 'owner');
          return existsSync(owner) && readFileSync(owner, 'utf8').startsWith(`${pid} `);
        });
    const isRunning = async () => (await builder.ctr('tasks', 'ls', '-q')).includes('obd-record-');
    while (child.exitCode === null && !(await isRunning())) await sleep(100);
    const [name = ''] = foldersOf(child.pid);
    child.kill('SIGKILL');
    await finished;
    const left = join(tmpdir(), name);
    assert.deepEqual(mountsIn(left), [join(left, 'root')]);
    const next = await record('--no-publish', '--until-output', '^ready', ...start, image);
    assert.match(next.stderr, new RegExp(`^Removed ${left}, which a killed`, 'm'));
    assert.deepEqual([existsSync(left), mountsIn(left)], [false, []]);
    assert.deepEqual(await builder.ctr('containers', 'ls', '-q'), '');
    // The killed command has left the image, too, whose device stays with it.
    fails(next, 1, /a device of it is attached \(\/dev\/[^,]+, mounted at [^,]+\), and/);
    await builder.ctr('images', 'rm', '--sync', image);
    const last = await record('--no-publish', '--until-output', '^ready', ...start, image);
    assert.equal(last.status, 0, last.stderr);
    await nothingRuns();
  });

  test('deletes what is published', async () => {
    const { status, stdout, stderr } = await obdctl('record', '--plain-http', '--delete', image);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^Deleted 2 of the load orders of /);
    assert.deepEqual(await list(), []);
  });
});
