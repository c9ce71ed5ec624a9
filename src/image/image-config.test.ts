/**
 * Goal: what overlaybd's producers write is read, what makes no sense is refused by file and key, and what
 * is written replaces the file as a whole.
 * Method: files by hand.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { readImageConfig, writeImageConfig } from './image-config.js';

const folder = mkdtempSync(join(tmpdir(), 'obd-config-'));
const path = join(folder, 'config.v1.json');
after(() => rmSync(folder, { recursive: true }));

const DIGEST = `sha256:${'a'.repeat(64)}`;

async function read(content: unknown) {
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return await readImageConfig(path);
}

describe('readImageConfig()', () => {
  test('reads the configs of overlaybd’s snapshotter', async () => {
    const config = await read({
      repoBlobUrl: 'https://registry.example.com/v2/app/blobs',
      lowers: [
        { digest: DIGEST, size: 4737695, dir: '/var/lib/x/snapshots/1/fs' },
        { file: '/var/lib/x/snapshots/2/fs/overlaybd.commit' },
      ],
      upper: {},
      resultFile: '/var/lib/x/snapshots/3/block/init-debug.log',
      accelerationLayer: false,
      recordTracePath: '',
      download: { enable: true },
    });
    assert.equal(config.lowers.length, 2);
    assert.deepEqual(config.lowers[0], {
      digest: DIGEST,
      size: 4737695,
      dir: '/var/lib/x/snapshots/1/fs',
    });
  });

  test('takes empty values and missing keys for nothing', async () => {
    assert.deepEqual(await read({}), { repoBlobUrl: '', lowers: [] });
    const empty = { file: '', dir: '', digest: '', size: 0, targetFile: '', gzipIndex: '' };
    assert.deepEqual((await read({ lowers: [empty] })).lowers, [empty]);
  });

  for (const [key, content] of [
    ['"lowers[1].size": ', { lowers: [{}, { size: '12' }] }],
    ['"lowers[0].size": ', { lowers: [{ size: 2 ** 60 }] }],
    ['"lowers[0].digest": must be sha256', { lowers: [{ digest: 'sha256:../..' }] }],
    ['"lowers[0].dir": must be an absolute path', { lowers: [{ dir: 'x' }] }],
    ['"lowers": ', { lowers: {} }],
    ['"lowers": at most 255 layers', { lowers: Array(256).fill({}) }],
    ['"repoBlobUrl": must be https://', { repoBlobUrl: 'registry.example.com/app' }],
    ['"upper": ', { upper: 'none' }],
    ['"accelerationLayer": ', { accelerationLayer: 'no' }],
    ['the whole: ', []],
    ['it is not JSON: ', '{"lowers": ['],
  ] as const) {
    test(`refuses, by file and key: ${key}`, async () => {
      await assert.rejects(read(content), (error: Error & { code?: string }) => {
        assert.equal(error.code, ErrorCodes.InvalidArgument);
        const message = `Cannot use the image config "${path}": ${key}`;
        assert.equal(error.message.slice(0, message.length), message);
        return true;
      });
    });
  }

  test('reports a missing file, a directory and a file that is too large', async () => {
    await assert.rejects(readImageConfig(join(folder, 'none')), { code: ErrorCodes.NotFound });
    await assert.rejects(readImageConfig(folder), { code: ErrorCodes.InvalidArgument });
    await assert.rejects(read(' '.repeat((4 << 20) + 1)), { code: ErrorCodes.InvalidArgument });
  });
});

describe('writeImageConfig()', () => {
  test('writes compactly, for the owner alone, and leaves nothing else', async () => {
    writeFileSync(path, 'old', { mode: 0o644 });
    const lowers = [{ digest: DIGEST, size: 10, dir: '/d', file: '' }];
    await writeImageConfig(path, { repoBlobUrl: 'https://h/v2/a/blobs', lowers });
    assert.equal(
      readFileSync(path, 'utf8'),
      `{"repoBlobUrl":"https://h/v2/a/blobs","lowers":[{"digest":"${DIGEST}","size":10,"dir":"/d"}],"upper":{},"resultFile":""}`,
    );
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(folder), ['config.v1.json']);
    const { lowers: found } = await readImageConfig(path);
    assert.deepEqual(found, [{ digest: DIGEST, size: 10, dir: '/d' }]);
  });

  test('says so when it cannot, and leaves the old one', async () => {
    await assert.rejects(
      writeImageConfig(join(folder, 'none', 'x'), { repoBlobUrl: '', lowers: [] }),
      { code: ErrorCodes.Io },
    );
  });
});
