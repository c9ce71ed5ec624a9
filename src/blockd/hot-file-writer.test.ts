/**
 * Goal: writing a hot blob delays no container, and ends.
 * Method: a cache whose source notes the urgency of each request, and a layer whose pages never come.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { BlobDouble } from '../../test/support/blob-double.js';
import { CONTENT, OpenBlob, withCache } from '../../test/support/cache-scene.js';
import { hotSource } from '../../test/support/hot-source.js';
import { MemoryFile } from '../../test/support/memory-file.js';
import { ErrorCodes } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import { BackgroundFile } from './background-file.js';
import { writeHotFile } from './hot-file-writer.js';

const RUNS = Uint32Array.from([0, 3, 2, 0, 200, 40]);

async function withFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp('/var/tmp/obdw.');
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test('writeHotFile() fetches missing pages in the background', async () => {
  await withFolder(async (folder) => {
    await withCache(async (cache) => {
      const [source, registry] = [await hotSource(CONTENT), new BlobDouble(CONTENT)];
      const blob = await OpenBlob.open(cache, registry);
      const path = join(folder, 'blob');
      const file = new BackgroundFile(blob);
      const { digest, sizeBytes } = await writeHotFile([{ ...source, file }], RUNS, path);
      const bytes = await readFile(path);
      assert.deepEqual([digest, sizeBytes], [sha256Of(bytes), bytes.length]);
      assert.ok(registry.urgencies.length > 0);
      assert.deepEqual([...new Set(registry.urgencies)], ['background']);
      blob.close();
    });
  });
});

test('writeHotFile() ends after 150 s, and leaves no file', async (t) => {
  await withFolder(async (folder) => {
    let asked = () => {};
    const isAsked = new Promise<void>((resolve) => {
      asked = resolve;
    });
    class NeverFile extends MemoryFile {
      override tryRead(): boolean {
        return false;
      }
      override async load(): Promise<void> {
        asked();
        await new Promise(() => {});
      }
    }
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const source = { ...(await hotSource(CONTENT)), file: new NeverFile(CONTENT) };
    const path = join(folder, 'blob');
    const failed = assert.rejects(writeHotFile([source], RUNS, path), {
      code: ErrorCodes.Unavailable,
      message: /pages have not come within 150 s/,
    });
    await isAsked;
    t.mock.timers.tick(149_999);
    assert.ok(existsSync(path));
    t.mock.timers.tick(1);
    await failed;
    assert.equal(existsSync(path), false);
  });
});
