/**
 * Goal: `obdctl layer export` writes exactly the disk of upstream's tools, from every form in which they store layers,
 * and sparsely; a failure is one line, and leaves no file, whole or half.
 * Method: upstream's files against the published hashes of their disks; then wrong arguments, damaged copies, a full
 * disk and an interruption, each with a look at the directory afterwards.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import {
  encodeLayerHeader,
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SPARSE,
  HEADER_BYTES,
} from '../../src/lsmt/layer-header.js';
import { noisyPage, provedLayer } from '../support/proved-layer.js';
import { obdctl, startObdctl } from '../support/run-obdctl.js';
import {
  DISK_SHA256,
  unxzVector,
  vectorBytes,
  vectorPath,
  vectorsMissing,
  xzMissing,
} from '../support/vectors.js';

const GIB = 2 ** 30;
/** Even a read of so many bytes of holes takes longer than sending a signal. */
const DISK_THAT_TAKES_LONG_BYTES = 64 * GIB;
const LZ4 = 'l1.lz4.4k.tar.commit';
let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'obdctl-layer-'));
});
after(async () => {
  await rm(folder, { recursive: true });
});

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}

async function exported(...args: string[]): Promise<string> {
  const out = join(folder, 'disk.raw');
  const { status, stderr } = await obdctl('layer', 'export', out, ...args);
  assert.equal(status, 0, stderr);
  const { size, blocks } = await stat(out);
  assert.equal(size, GIB);
  assert.ok(blocks * 512 < 32 << 20, `${blocks * 512} bytes allocated: it is not sparse`);
  const sha256 = await sha256Of(out);
  await rm(out);
  assert.deepEqual(await readdir(folder), []);
  return sha256;
}

describe('obdctl layer export', { skip: vectorsMissing }, () => {
  for (const name of [LZ4, 'l1.zstd.4k.tar.commit', 'l1.lz4.16k.commit']) {
    test(`writes the disk of ${name}`, async () => {
      assert.equal(await exported(vectorPath(name)), DISK_SHA256.l1);
    });
  }

  test('stacks layers, bottom first', async () => {
    const layers = [LZ4, 'l2.lz4.4k.tar.commit'].map(vectorPath);
    assert.equal(await exported(...layers), DISK_SHA256.l1l2);
  });

  test('writes the disk of a merged layer', async () => {
    assert.equal(await exported(vectorPath('merged.z')), DISK_SHA256.l1l2);
  });

  test('takes the file contents of a TurboOCI layer from --target', async () => {
    const layer = vectorPath('turbo/tar.z.tar.commit');
    assert.equal(await exported(layer, '--target', vectorPath('l1.tar')), DISK_SHA256.turbo);
  });
});

describe('obdctl layer export of layers stored as .xz', { skip: xzMissing() }, () => {
  let unpacked: string;
  const put = async (name: string, bytes: Uint8Array) => {
    const path = join(unpacked, name);
    await writeFile(path, bytes);
    return path;
  };
  before(async () => {
    unpacked = await mkdtemp(join(tmpdir(), 'obdctl-layer-xz-'));
  });
  after(async () => {
    await rm(unpacked, { recursive: true });
  });

  test('writes the disk of a plain committed layer', async () => {
    const layer = await put('l1.commit', unxzVector('l1.commit.xz'));
    assert.equal(await exported(layer), DISK_SHA256.l1);
  });

  test('writes the disk of writable layers', async () => {
    const layers: string[] = [];
    for (const name of ['l1', 'l2']) {
      const data = await put(`${name}.data`, unxzVector(`${name}.rw/data.xz`));
      layers.push(`${data},${await put(`${name}.index`, vectorBytes(`${name}.rw/index`))}`);
    }
    assert.equal(await exported(...layers), DISK_SHA256.l1l2);
    const { stdout } = await obdctl('layer', 'inspect', '--json', layers[1]!);
    const [report] = JSON.parse(stdout);
    assert.equal(report.form, 'writable');
    assert.equal(report.virtualBytes, GIB);
  });
});

describe('obdctl layer export refuses, leaving nothing,', { skip: vectorsMissing }, () => {
  const refused = async (status: number, pattern: RegExp, out: string, ...layers: string[]) => {
    const finished = await obdctl('layer', 'export', out, ...layers);
    assert.match(finished.stderr, pattern);
    assert.equal(finished.stderr.trimEnd().split('\n').length, 1, finished.stderr);
    assert.equal(finished.status, status);
    assert.deepEqual(await readdir(folder), []);
  };
  const out = () => join(folder, 'disk.raw');

  test('a file that is not there', async () => {
    await refused(1, /Cannot open "\/no\/such".*no such file/, out(), '/no/such');
  });

  test('a file that is no layer', async () => {
    await refused(1, /Cannot read .*package.json/, out(), join(process.cwd(), 'package.json'));
  });

  test('a TurboOCI layer without its target', async () => {
    await refused(1, /Cannot read .*outside the data/, out(), vectorPath('turbo/tar.z.tar.commit'));
  });

  test('a number of targets that does not match the layers', async () => {
    await refused(2, /--target/, out(), vectorPath(LZ4), vectorPath(LZ4), '--target', 'x');
  });

  test('a directory that does not exist', async () => {
    await refused(
      1,
      /Cannot write .*no such file/,
      join(folder, 'no', 'disk.raw'),
      vectorPath(LZ4),
    );
  });

  test('truncated and bit-flipped copies', async () => {
    const bytes = await readFile(vectorPath(LZ4));
    const damaged = await mkdtemp(join(tmpdir(), 'obdctl-damaged-'));
    try {
      const copy = join(damaged, 'layer');
      await writeFile(copy, bytes.subarray(0, bytes.length >> 1));
      await refused(1, /Cannot read .*layer at [0-9]+: /, out(), copy);
      bytes[bytes.length >> 1]! ^= 0x10;
      await writeFile(copy, bytes);
      await refused(1, /Cannot read .*layer at [0-9]+: /, out(), copy);
    } finally {
      await rm(damaged, { recursive: true });
    }
  });

  test('a disk that is full', {
    skip: process.geteuid?.() !== 0 && 'mounting needs root',
  }, async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder]);
    try {
      await refused(1, /Cannot write .*the disk is full; free some space/, out(), vectorPath(LZ4));
    } finally {
      execFileSync('umount', [folder]);
    }
  });

  test('to finish when interrupted', async () => {
    const slow = await mkdtemp(join(tmpdir(), 'obdctl-slow-'));
    try {
      const layer = join(slow, 'sparse');
      await writeFile(layer, sparseLayerHeader(DISK_THAT_TAKES_LONG_BYTES));
      await truncate(layer, HEADER_BYTES + DISK_THAT_TAKES_LONG_BYTES);
      const { child, finished } = startObdctl('layer', 'export', out(), `${layer},${layer}`);
      while ((await readdir(folder)).length === 0) await setTimeout(5);
      child.kill('SIGTERM');
      const { status, stderr } = await finished;
      assert.equal(stderr, 'obdctl: Interrupted by SIGTERM\n');
      assert.equal(status, 143);
      assert.deepEqual(await readdir(folder), []);
    } finally {
      await rm(slow, { recursive: true });
    }
  });
});

describe('obdctl layer inspect', { skip: vectorsMissing }, () => {
  test('tells the forms apart', async () => {
    const names = [LZ4, 'l1.zstd.4k.tar.commit', 'l1.lz4.16k.commit'];
    const { status, stdout } = await obdctl('layer', 'inspect', '--json', ...names.map(vectorPath));
    assert.equal(status, 0);
    const reports = JSON.parse(stdout);
    const forms = reports.map((report: { tar: boolean; compression: { algorithm: string } }) => [
      report.tar,
      report.compression.algorithm,
    ]);
    assert.deepEqual(forms, [
      [true, 'lz4'],
      [true, 'zstd'],
      [false, 'lz4'],
    ]);
    assert.equal(reports[0].uuid, '11111111-2222-3333-4444-555555555555');
    assert.equal(reports[2].compression.blockBytes, 16384);
  });

  test('finds the hash tree behind the tar', async () => {
    const { blob, hashTree } = provedLayer(20, (page) => noisyPage(page, 1));
    const path = join(folder, 'proved.layer');
    await writeFile(path, blob);
    const { stdout } = await obdctl('layer', 'inspect', '--json', path, vectorPath(LZ4));
    const found = JSON.parse(stdout).map((report: { hashTree: unknown }) => report.hashTree);
    assert.deepEqual(found, [hashTree, null]);
    const text = await obdctl('layer', 'inspect', path, vectorPath(LZ4));
    assert.match(text.stdout, new RegExp(`hash tree +${hashTree.root}`));
    assert.match(text.stdout, /hash tree +none/);
  });

  test('prints text for people', async () => {
    const { stdout } = await obdctl('layer', 'inspect', vectorPath(LZ4));
    assert.match(stdout, /virtual size +1\.0 GiB/);
  });
});

describe('the command line', () => {
  for (const args of [[], ['no-such'], ['layer'], ['layer', 'export'], ['doctor', '--no-such']]) {
    test(`"obdctl ${args.join(' ')}" is a usage error`, async () => {
      const { status, stderr } = await obdctl(...args);
      assert.match(stderr, /^obdctl: .*see obdctl --help\n$/);
      assert.equal(status, 2);
    });
  }
});

/** A writable layer of the sparse form is its header and the disk: all of it must be read. */
function sparseLayerHeader(virtualBytes: number): Buffer {
  const uuid = '00000000-0000-0000-0000-000000000000';
  const flags = FLAG_HEADER | FLAG_DATA | FLAG_SPARSE;
  const index = { indexOffset: 0, indexEntries: 0 };
  return encodeLayerHeader({ flags, ...index, virtualBytes, uuid, parentUuid: uuid, userTag: '' });
}
