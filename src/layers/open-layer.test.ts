/**
 * Goal: every disk that upstream's tools made reads as upstream reads it, in each form they store it.
 * Method: their files, and the published hash of every byte of the virtual disk.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ArrivingFile, MemoryFile, MemorySink } from '../../test/support/memory-file.js';
import {
  DISK_SHA256,
  sha256OfDisk,
  unxzVector,
  vectorBytes,
  vectorPath,
  vectorsMissing,
  xzMissing,
} from '../../test/support/vectors.js';
import { ErrorCodes } from '../errors.js';
import { LocalFile } from '../io/local-file.js';
import { CommittedLayerWriter } from '../lsmt/committed-writer.js';
import type { Layer } from '../lsmt/layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { UnsealedLayer } from '../lsmt/unsealed-layer.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { ZFileWriter } from '../zfile/zfile-writer.js';
import { LAYER_FORMATS } from './layer-formats.js';
import { LAYER_KINDS } from './layer-kinds.js';
import { openLayer } from './open-layer.js';
import { TarWrapperWriter } from './tar-wrapper.js';

const dependencies = { formats: LAYER_FORMATS, decoded: new DecodedBlocks(1 << 20) };
const vector = (name: string) => openLayer(LocalFile.open(vectorPath(name)), dependencies);

async function diskSha256(...layers: Layer[]): Promise<string> {
  const stack = new LayerStack(layers);
  try {
    return await sha256OfDisk(stack);
  } finally {
    stack.close();
  }
}

async function unsealed(folder: string): Promise<UnsealedLayer> {
  const data = new MemoryFile(unxzVector(`${folder}/data.xz`), `${folder}/data`);
  return await UnsealedLayer.open(data, new MemoryFile(vectorBytes(`${folder}/index`)));
}

describe('upstream layers', { skip: vectorsMissing }, () => {
  for (const name of ['l1.lz4.4k.tar.commit', 'l1.zstd.4k.tar.commit', 'l1.lz4.16k.commit']) {
    test(`${name} is the disk l1`, async () => {
      assert.equal(await diskSha256(await vector(name)), DISK_SHA256.l1);
    });
  }

  test('carry their names and their parents’', async () => {
    const [l1, l2] = [await vector('l1.lz4.4k.tar.commit'), await vector('l2.lz4.4k.tar.commit')];
    assert.equal(l1.uuid, '11111111-2222-3333-4444-555555555555');
    assert.equal(l2.parentUuid, l1.uuid);
    assert.equal(l1.virtualBytes, 1 << 30);
    assert.equal(await diskSha256(l1, l2), DISK_SHA256.l1l2);
  });

  test('merged into one, header not overwritten, are the same disk', async () => {
    assert.equal(await diskSha256(await vector('merged.z')), DISK_SHA256.l1l2);
  });

  test('take file contents from the tar, for TurboOCI', async () => {
    const blob = LocalFile.open(vectorPath('turbo/tar.z.tar.commit'));
    const layer = await openLayer(blob, dependencies, { targetFile: vectorPath('l1.tar') });
    assert.equal(await diskSha256(layer), DISK_SHA256.turbo);
  });
});

describe('upstream layers stored plain', { skip: xzMissing() }, () => {
  test('committed', async () => {
    const layer = await openLayer(new MemoryFile(unxzVector('l1.commit.xz')), dependencies);
    assert.equal(await diskSha256(layer), DISK_SHA256.l1);
  });

  test('append-only, alone and stacked', async () => {
    assert.equal(await diskSha256(await unsealed('l1.rw')), DISK_SHA256.l1);
    assert.equal(
      await diskSha256(await unsealed('l1.rw'), await unsealed('l2.rw')),
      DISK_SHA256.l1l2,
    );
    const l1 = await vector('l1.lz4.16k.commit');
    assert.equal(await diskSha256(l1, await unsealed('l2.rw')), DISK_SHA256.l1l2);
  });
});

/** A layer in all its clothes. */
function blob(): Buffer {
  const sink = new MemorySink();
  const tar = new TarWrapperWriter(sink);
  const zfile = new ZFileWriter(tar, { algorithm: 'zstd', blockBytes: 4096 });
  const layer = new CommittedLayerWriter(zfile, { virtualBytes: 1 << 20 });
  layer.write(8192, Buffer.alloc(4096, 'data'));
  for (const writer of [layer, zfile, tar]) writer.finish();
  return sink.written;
}

describe('openLayer()', () => {
  test('fetches damaged headers again, of the tar and of the layer in it', async () => {
    const stored = blob();
    for (const spot of [0, 150, 257, 516, 1024 + 200, 1536, 1600]) {
      const damaged = Uint8Array.from(stored);
      damaged[spot]! ^= 1;
      const source = new ArrivingFile(stored, damaged);
      const layer = await openLayer(source, dependencies);
      assert.equal(layer.virtualBytes, 1 << 20, `byte ${spot}`);
      assert.ok(source.forgets.length <= 1);
    }
  });

  test('says so when there is none', async () => {
    const names = LAYER_KINDS.map(({ name }) => name).join(', ');
    await assert.rejects(openLayer(new MemoryFile(new Uint8Array(9000), 'blob'), dependencies), {
      message: `Cannot read blob at 0: neither its first bytes nor its tar's are of a known kind of layer (${names})`,
    });
  });

  for (const [what, bytes] of [
    ['an empty file', 0],
    ['a short file', 511],
    ['a file of zeroes', 65536],
  ] as const) {
    test(`rejects ${what} as corrupt`, async () => {
      await assert.rejects(openLayer(new MemoryFile(new Uint8Array(bytes)), dependencies), {
        code: ErrorCodes.Corrupt,
      });
    });
  }
});
