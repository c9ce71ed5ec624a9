/**
 * Goal: the libraries of a program are found as its dynamic linker finds them, and each part of a file is in the right tier.
 * Method: images in memory with programs and libraries in all directories that a linker searches.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const library = elfBytes();

describe('a program and its libraries', () => {
  test('come with the dynamic linker and what each library needs', async () => {
    const prediction = await predictionOf(
      {
        '/bin/server': elfBytes({ interpreter: '/lib64/ld.so', needed: ['liba.so'] }),
        '/lib64/ld.so': library,
        '/usr/lib/x86_64-linux-gnu/liba.so': elfBytes({ needed: ['libb.so', 'libmissing.so'] }),
        '/usr/lib/x86_64-linux-gnu/libb.so': elfBytes({ needed: ['liba.so'] }),
        '/usr/lib/x86_64-linux-gnu/libother.so': library,
      },
      ['server'],
    );
    assert.deepEqual(pathsOf(prediction, 'elf'), [
      '/bin/server',
      '/lib64/ld.so',
      '/usr/lib/x86_64-linux-gnu/liba.so',
      '/usr/lib/x86_64-linux-gnu/libb.so',
    ]);
  });

  test('are searched in RPATH, LD_LIBRARY_PATH, RUNPATH with $ORIGIN, and the directories of ld.so.conf', async () => {
    const prediction = await predictionOf(
      {
        '/bin/server': elfBytes({
          needed: ['liba.so', 'libb.so', 'libc.so', 'libd.so'],
          rpath: '/opt/r',
        }),
        '/opt/r/liba.so': elfBytes({ needed: ['libe.so'], runpath: '$ORIGIN/../own' }),
        '/opt/own/libe.so': library,
        '/opt/env/libb.so': library,
        '/opt/conf/libc.so': library,
        '/usr/lib/libd.so': library,
        '/lib/liba.so': library,
        '/etc/ld.so.conf': 'include /etc/ld.so.conf.d/*.conf\n',
        '/etc/ld.so.conf.d/own.conf': '# ours\n/opt/conf\n',
      },
      ['server'],
      { env: ['LD_LIBRARY_PATH=/opt/env'] },
    );
    assert.deepEqual(pathsOf(prediction, 'elf').slice(1).sort(), [
      '/opt/conf/libc.so',
      '/opt/env/libb.so',
      '/opt/own/libe.so',
      '/opt/r/liba.so',
      '/usr/lib/libd.so',
    ]);
  });

  test('have tables in tier 1, instructions in tier 2, and those of a large library in tier 3', async () => {
    const { files } = await predictionOf(
      {
        '/bin/server': elfBytes({ needed: ['liblarge.so'] }),
        '/lib/liblarge.so': elfBytes({ textBytes: 9 << 20 }),
      },
      ['server'],
    );
    const tiersOf = (path: string) =>
      files.filter((file) => file.path === path).map(({ tier }) => tier);
    assert.deepEqual(new Set(tiersOf('/bin/server')), new Set([1, 2]));
    assert.deepEqual(tiersOf('/lib/liblarge.so'), [1, 3]);
  });

  test('end where the libraries need each other without end', async () => {
    const files: Record<string, Buffer> = { '/bin/server': elfBytes({ needed: ['lib0.so'] }) };
    for (let i = 0; i < 1000; i++)
      files[`/lib/lib${i}.so`] = elfBytes({ needed: [`lib${i + 1}.so`] });
    const prediction = await predictionOf(files, ['server']);
    assert.ok(pathsOf(prediction).length <= 401);
  });
});
