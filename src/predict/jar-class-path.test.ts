/**
 * Goal: the class path of a jar's manifest, and bounded work for archives made to trap.
 * Method: small archives written here; forged ones with each field of their records set to extremes.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { deflateRawSync } from 'node:zlib';
import { treeOf } from '../../test/support/predicted-image.js';
import { ImageFiles } from './image-files.js';
import { classPathOf } from './jar-class-path.js';

/** An archive with one entry, deflated. */
function jarOf(content: Buffer, name = 'META-INF/MANIFEST.MF'): Buffer {
  const packed = deflateRawSync(content, { level: 9 });
  const local = Buffer.alloc(30 + name.length);
  local.writeUInt32LE(0x04034b50, 0);
  local.writeUInt16LE(8, 8);
  local.writeUInt16LE(name.length, 26);
  local.write(name, 30);
  const entry = Buffer.alloc(46 + name.length);
  entry.writeUInt32LE(0x02014b50, 0);
  entry.writeUInt16LE(8, 10);
  entry.writeUInt32LE(packed.length, 20);
  entry.writeUInt16LE(name.length, 28);
  entry.write(name, 46);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt32LE(entry.length, 12);
  end.writeUInt32LE(local.length + packed.length, 16);
  return Buffer.concat([local, packed, entry, end]);
}

async function read(jar: Buffer) {
  const image = new ImageFiles(await treeOf({ '/a.jar': jar }));
  return { names: await classPathOf(image, (await image.findFile('/a.jar'))!), image };
}

describe('classPathOf()', () => {
  test('joins the lines of the class path', async () => {
    const manifest =
      'Manifest-Version: 1.0\r\nClass-Path: lib/a.jar ../b\r\n .jar c.jar\r\nMain-Class: M\r\n';
    const { names } = await read(jarOf(Buffer.from(manifest)));
    assert.deepEqual(names, ['lib/a.jar', '../b.jar', 'c.jar']);
  });

  test('is empty without a class path, a manifest or an archive', async () => {
    for (const jar of [
      jarOf(Buffer.from('Main-Class: M\n')),
      jarOf(Buffer.from('Class-Path: a.jar\n'), 'other'),
      Buffer.from('no archive'),
      Buffer.alloc(0),
    ])
      assert.deepEqual((await read(jar)).names, []);
  });

  test('does not inflate a bomb', async () => {
    const bomb = jarOf(
      Buffer.concat([Buffer.from('Class-Path: a.jar\n'), Buffer.alloc(256 << 20)]),
    );
    const begin = process.memoryUsage().rss;
    assert.deepEqual((await read(bomb)).names, []);
    assert.ok(process.memoryUsage().rss - begin < 64 << 20);
  });

  test('reads little of a forged archive', async () => {
    const good = jarOf(Buffer.from('Class-Path: a.jar\n'));
    for (let at = 0; at < good.length; at += 2) {
      const forged = Buffer.from(good);
      forged.fill(0xff, at, Math.min(at + 4, forged.length));
      const { image } = await read(forged);
      assert.ok(image.readBytes < 512 << 10);
    }
  });
});
