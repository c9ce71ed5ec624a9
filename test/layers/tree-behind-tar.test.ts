/**
 * Goal: the hash tree behind a layer's tar disturbs no reader that does not know it: programs that unpack tars find one file,
 * and a layer with other bytes behind it reads as before.
 * Method: GNU tar and Python on a blob as obdconv writes it; upstream's own layers with a tree put behind them.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import { openLayer } from '../../src/layers/open-layer.js';
import { LayerStack } from '../../src/lsmt/layer-stack.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { MemoryFile } from '../support/memory-file.js';
import { noisyPage, provedLayer } from '../support/proved-layer.js';
import { DISK_SHA256, sha256OfDisk, vectorBytes, vectorsMissing } from '../support/vectors.js';

const PAYLOAD_AT = 1536;
const { blob, hashTree } = provedLayer(200, (page) => noisyPage(page, 1));
const layerBytes = Number(/size=([0-9]+)/.exec(blob.toString('latin1', 512, 1024))?.[1]);
const layerSha256 = createHash('sha256')
  .update(blob.subarray(PAYLOAD_AT, PAYLOAD_AT + layerBytes))
  .digest('hex');

const PYTHON = `
import hashlib, io, sys, tarfile
with tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())) as tar:
    for member in tar:
        print(member.name, hashlib.sha256(tar.extractfile(member).read()).hexdigest())
`;

function missing(program: string): string | false {
  return spawnSync(program, ['--version']).status === 0 ? false : `there is no ${program}`;
}

describe('a blob with a hash tree', () => {
  test('is a tar of one file for GNU tar', { skip: missing('tar') }, () => {
    const run = (...args: string[]) => spawnSync('tar', args, { input: blob });
    const listed = run('--list', '--file', '-');
    assert.deepEqual([String(listed.stdout), String(listed.stderr)], ['overlaybd.commit\n', '']);
    const { stdout } = run('--extract', '--to-stdout', '--file', '-');
    assert.equal(createHash('sha256').update(stdout).digest('hex'), layerSha256);
  });

  test('is a tar of one file for Python', { skip: missing('python3') }, () => {
    const { stdout } = spawnSync('python3', ['-c', PYTHON], { input: blob, encoding: 'utf8' });
    assert.equal(stdout, `overlaybd.commit ${layerSha256}\n`);
  });
});

test("upstream's layers read the same with a tree behind them", {
  skip: vectorsMissing,
}, async () => {
  const tree = blob.subarray(hashTree.offset);
  const dependencies = { formats: LAYER_FORMATS, decoded: new DecodedBlocks(1 << 20) };
  const layers = ['l1.lz4.4k.tar.commit', 'l2.lz4.4k.tar.commit'].map((name) =>
    openLayer(new MemoryFile(Buffer.concat([vectorBytes(name), tree]), name), dependencies),
  );
  assert.equal(await sha256OfDisk(new LayerStack(await Promise.all(layers))), DISK_SHA256.l1l2);
});
