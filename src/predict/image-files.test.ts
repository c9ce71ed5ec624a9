/**
 * Goal: paths lead where they would inside the image and nowhere else, and no image makes a look-up long or a read large.
 * Method: real file systems in memory, with link loops, links out of the image, huge directories and sparse files.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { diskOf, SparseMemory, treeOf } from '../../test/support/predicted-image.js';
import { Ext4Tree } from './ext4-tree.js';
import { ImageFiles } from './image-files.js';

describe('ImageFiles', () => {
  test('resolves links inside the image, whatever they say', async () => {
    const image = new ImageFiles(
      await treeOf({
        '/usr/bin/tool': 'x',
        '/bin': { link: 'usr/bin' },
        '/a/b/up': { link: '../../../../../usr/bin/tool' },
        '/a/absolute': { link: '/bin/tool' },
        '/a/chain': { link: 'b/up' },
      }),
    );
    for (const path of [
      '/bin/tool',
      '/a/b/up',
      '/a/absolute',
      '/a/chain',
      '/../bin//./tool',
      '/a/b/../chain',
    ]) {
      assert.equal((await image.find(path))?.path, '/usr/bin/tool', path);
    }
    assert.equal((await image.find('chain', '/a'))?.path, '/usr/bin/tool');
    for (const path of ['/absent', '/usr/bin/tool/x', '', '/a\0b', `/${'x/'.repeat(3000)}`]) {
      assert.equal(await image.find(path), undefined);
    }
  });

  test('ends links that lead to each other, and long chains of links', async () => {
    const files: Record<string, { link: string } | string> = {
      '/loop': { link: 'loop' },
      '/p': { link: 'q' },
      '/q': { link: 'p/p' },
    };
    for (let i = 0; i < 50; i++) files[`/l${i}`] = { link: `l${i + 1}` };
    files['/l50'] = 'end';
    const image = new ImageFiles(await treeOf(files));
    for (const path of ['/loop', '/p', '/q', '/l0'])
      assert.equal(await image.find(path), undefined);
    assert.equal((await image.find('/l20'))?.path, '/l50');
  });

  test('gives all names of a file one inode', async () => {
    const image = new ImageFiles(
      await treeOf({ '/bin/busybox': 'x', '/bin/sh': { same: '/bin/busybox' } }),
    );
    assert.equal((await image.find('/bin/sh'))?.inode, (await image.find('/bin/busybox'))?.inode);
  });

  test('reads no more than 64 MiB, and then nothing', async () => {
    const image = new ImageFiles(await treeOf({ '/big': { holeBytes: 2 ** 32 } }));
    const big = (await image.findFile('/big'))!;
    for (let i = 0; i < 10; i++) await image.read(big, i * 2 ** 25, 2 ** 23);
    assert.equal(image.readBytes, 64 << 20);
    assert.ok(image.isExhausted);
    assert.equal((await image.read(big, 0, 10)).length, 0);
    assert.equal(await image.find('/other'), undefined);
  });

  test('looks up no more than 50,000 paths', async () => {
    const image = new ImageFiles(await treeOf({ '/a': 'x' }));
    for (let i = 0; i < 50_001; i++) await image.find(`/absent${i}`);
    assert.ok(image.isExhausted);
    assert.equal(await image.find('/a'), undefined);
  });

  test('neither lists nor searches a directory of more than 1 MiB', async () => {
    const files: Record<string, string> = { '/small/a': 'x' };
    for (let i = 0; i < 30_000; i++) files[`/large/${`${i}`.padStart(40, 'x')}`] = '';
    const image = new ImageFiles(await treeOf(files));
    assert.deepEqual(await image.list('/large'), []);
    assert.equal(await image.find(`/large/${'7'.padStart(40, 'x')}`), undefined);
    assert.deepEqual(await image.list('/small'), ['a']);
  });
});

test('a disk whose bytes arrive late is read the same, and only where it is needed', async () => {
  const loads: number[] = [];
  const whole = diskOf({
    '/etc/passwd': 'root',
    '/bin/link': { link: '../etc/passwd' },
    '/data': 'x'.repeat(9 << 20),
  });
  class LateDisk extends SparseMemory {
    readonly #here = new Set<string>();

    override tryRead(target: Uint8Array, offset: number): boolean {
      whole.read(target, offset);
      // Bytes stay for one read only, as in a cache that evicts at once.
      return this.#here.delete(`${offset}:${target.length}`);
    }

    override async load(offset: number, length: number): Promise<void> {
      loads.push(length);
      this.#here.add(`${offset}:${length}`);
    }
  }
  const image = new ImageFiles(await Ext4Tree.open(new LateDisk()));
  const file = (await image.findFile('/bin/link'))!;
  assert.equal(await image.text(file, 100), 'root');
  assert.deepEqual(await image.list('/etc'), ['passwd']);
  assert.ok(
    loads.length > 0 && loads.every((length) => length <= 4096) && loads.length < 60,
    `${loads.length}`,
  );
});
