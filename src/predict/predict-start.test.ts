/**
 * Goal: a prediction is the same for the same image, names each file with its rule and reason, and stays within its bounds.
 * Method: whole predictions of images in memory; author's files, data of the C library and shebangs by the way.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { type Content, pathsOf, predictionOf } from '../../test/support/predicted-image.js';
import { bytesOf } from './prediction.js';

const program = elfBytes({ interpreter: '/lib/ld.so' });

describe('predictStart()', () => {
  test('is the same for the same image, with a rule and a reason for each file', async () => {
    const files = {
      '/bin/sh': program,
      '/lib/ld.so': elfBytes(),
      '/app/run': '#!/bin/sh\nexec /bin/sh -c "echo"\n',
      '/app/settings.json': '{}',
      '/etc/ld.so.cache': 'cache',
      '/etc/passwd': 'root',
    };
    const one = await predictionOf(files, ['./run', '/app/settings.json'], { cwd: '/app' });
    assert.deepEqual(
      await predictionOf(files, ['./run', '/app/settings.json'], { cwd: '/app' }),
      one,
    );
    const rules = new Map(one.files.map(({ path, rule }) => [path, rule]));
    assert.equal(rules.get('/app/run'), 'argv');
    assert.equal(rules.get('/app/settings.json'), 'author');
    assert.equal(rules.get('/etc/passwd'), 'libc-data');
    assert.ok(one.files.every(({ reason }) => reason.length > 3));
    assert.equal(one.isCut, false);
  });

  test('takes the small files of the author, and neither those of packages nor of the system', async () => {
    const files = {
      '/bin/server': program,
      '/srv/app/a.txt': 'a',
      '/srv/app/templates/b.html': 'b',
      '/srv/app/node_modules/c/index.js': 'c',
      '/srv/app/big.bin': { holeBytes: 300 << 10 },
      '/srv/app/out': { link: '/etc' },
      '/etc/secret': 'x',
    };
    const author = pathsOf(await predictionOf(files, ['server'], { cwd: '/srv/app' }), 'author');
    assert.deepEqual(author, ['/srv/app/a.txt', '/srv/app/templates/b.html']);
    assert.deepEqual(pathsOf(await predictionOf(files, ['server'], { cwd: '/etc' }), 'author'), []);
  });

  test('is empty for a command that the image does not have', async () => {
    assert.deepEqual((await predictionOf({ '/bin/server': program }, ['absent'])).files, []);
  });

  test('keeps to 16 MiB of a file, and to a quarter of the image or 64 MiB in all', async () => {
    const files: Record<string, Content> = { '/bin/cat': program };
    const names = Array.from({ length: 8 }, (_, i) => `/big/${i}`);
    for (const name of names) files[name] = { holeBytes: 2 ** 28 };
    const { files: predicted } = await predictionOf(files, ['cat', ...names]);
    const first = predicted.filter(({ path }) => path === '/big/0').flatMap(({ ranges }) => ranges);
    assert.equal(bytesOf(first), 16 << 20);
    const all = bytesOf(predicted.flatMap(({ ranges }) => ranges));
    assert.ok(all > 30 << 20 && all <= 64 << 20, `${all}`);
  });

  test('says that it was cut after 200 programs', async () => {
    const files: Record<string, Content> = { '/bin/sh': program };
    for (let i = 0; i < 300; i++) files[`/bin/p${i}`] = program;
    const script = Array.from({ length: 300 }, (_, i) => `p${i}`).join('\n');
    const prediction = await predictionOf(files, ['sh', '-c', script]);
    assert.ok(prediction.isCut);
    assert.ok(pathsOf(prediction).length <= 202);
  });
});
