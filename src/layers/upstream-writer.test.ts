/**
 * Goal: CommittedLayerWriter writes byte for byte what upstream's tools write of the same segments.
 * Method: upstream's own files written again.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCommitted } from '../../test/support/layer-samples.js';
import { MemorySink } from '../../test/support/memory-file.js';
import { listOf } from '../../test/support/segments.js';
import { vectorPath, vectorsMissing } from '../../test/support/vectors.js';
import { openZFile } from '../../test/support/zfile-samples.js';
import { LocalFile } from '../io/local-file.js';
import { readFully } from '../io/random-access-file.js';
import { CommittedLayerWriter } from '../lsmt/committed-writer.js';
import { ZEROES } from '../lsmt/segments.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { readHead } from './open-layer.js';
import { unwrapTar } from './tar-wrapper.js';

for (const name of ['l1.lz4.4k.tar.commit', 'l2.lz4.4k.tar.commit', 'l1.lz4.16k.commit']) {
  test(`CommittedLayerWriter writes ${name} again, byte for byte`, {
    skip: vectorsMissing,
  }, async () => {
    const tar = LocalFile.open(vectorPath(name));
    const { content } = unwrapTar(tar, await readHead(tar));
    const file = await openZFile(content, new DecodedBlocks(1 << 19));
    const original = Buffer.alloc(file.sizeBytes);
    await readFully(file, original, 0);
    const layer = await openCommitted(file);
    const { virtualBytes, uuid, parentUuid, userTag } = layer;
    const sink = new MemorySink();
    const writer = new CommittedLayerWriter(sink, { virtualBytes, uuid, parentUuid, userTag });
    for (const { start, length, moffset, source } of listOf(layer.segments)) {
      if (source === ZEROES) writer.writeZeroes(start * 512, length * 512);
      else writer.write(start * 512, original.subarray(moffset * 512, (moffset + length) * 512));
    }
    writer.finish();
    layer.close();
    assert.ok(sink.written.equals(original));
  });
}
