/**
 * Goal: hash trees are as docs/formats/hash-tree.md says; a tree proves the leaves that it was made of and no others,
 * whatever bytes of it a source sends.
 * Method: vectors and a program that were written from that page alone; every byte of small trees changed.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { distinctBytes } from '../../test/support/blob-double.js';
import { ArrivingFile, MemoryFile } from '../../test/support/memory-file.js';
import { ErrorCodes } from '../errors.js';
import { DecodedBlocks } from './decoded-blocks.js';
import { HashTree, NODE_NOT_LOCAL } from './hash-tree.js';
import { firstTreeBytes, TreeLayout } from './hash-tree-layout.js';
import { HashTreeWriter } from './hash-tree-writer.js';

const SCRIPT = join(import.meta.dirname, '../../../test/support/hash_tree.py');
const noPython =
  spawnSync('python3', ['--version']).status === 0 ? false : 'there is no python3 to compare with';

const headHash = Buffer.alloc(32, 0x11);
const indexHash = Buffer.alloc(32, 0x22);
const decoded = new DecodedBlocks(1 << 19);

/** Content bytes (distinctBytes()), root, SHA-256 of the tree, bytes of the tree: by test/support/hash_tree.py. */
const VECTORS: readonly (readonly [number, string, string, number])[] = [
  [
    0,
    '1d3c61f7826d9f0a278585241bb42b7d4a7d902eb02b0694078c9b1003152905',
    '1d3c61f7826d9f0a278585241bb42b7d4a7d902eb02b0694078c9b1003152905',
    512,
  ],
  [
    1,
    'f5f2d9112ad0d14944fa527f5d3acd0960e19d70c3481be3445cc26a0deecab0',
    'f5f2d9112ad0d14944fa527f5d3acd0960e19d70c3481be3445cc26a0deecab0',
    512,
  ],
  [
    4096,
    'd6fad1a6ecf586022dc5e017b0529c4f4062383cc6499692f21a313a15db9e8d',
    'd6fad1a6ecf586022dc5e017b0529c4f4062383cc6499692f21a313a15db9e8d',
    512,
  ],
  [
    4097,
    'a5db0d8a30a2dad3e2c266d4c4d6fc894732b6302933b29dd932b993ae2adeb2',
    'c1183f04a940e7555a6bb63fad7e7ce499774058491e0e1141a5f1166c6c88fa',
    4608,
  ],
  [
    524288,
    'acfb3d88dd756adf80be50acf662dba9f5b27914fe11481b29d7078aecadb191',
    '23df5d78c80d5e1dca8e36d53768dd3a991d9219e0049b86312950d4b37ed9a2',
    4608,
  ],
  [
    524289,
    '3909b428f184f73a9fa6d90494d0cc58e386f98e412e845d1094bf2effebfe02',
    'db0ff369a1d9a624ce2eb069610f1b8e7d5c09fb1609a0dcb7b8ca0e94ba54c2',
    12800,
  ],
  [
    1600000,
    '288698fd1789f4717bff0f1488f16282f6223cf58e373a94ff32fc46d9760f4a',
    '9df4967df1eac4d954518b2b87bbd9755d47bf7bf1da995d05a5b22043ed75ee',
    20992,
  ],
  [
    67113864,
    'be52f36b56199dd69781da11543b29a8be13dfb84bd5d8012d6c9552aad35ee0',
    '8411fba834308761052c06381f9a5f21f1b6b7122c647099ccfd67a89ca0ef5c',
    541184,
  ],
];

function treeOf(content: Uint8Array, pieceBytes = content.length + 1) {
  const writer = new HashTreeWriter({ write: () => {} });
  for (let at = 0; at < content.length; at += pieceBytes) {
    writer.write(content.subarray(at, at + pieceBytes));
  }
  return writer.finish({ headHash, indexHash });
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** A blob of 1000 other bytes and a tree. */
function blobWith(tree: Uint8Array): Buffer {
  return Buffer.concat([Buffer.alloc(1000, 0x77), tree]);
}

describe('HashTreeWriter', () => {
  for (const [bytes, root, sha, treeBytes] of VECTORS) {
    test(`writes the tree of ${bytes} bytes`, () => {
      const { tree, root: found } = treeOf(distinctBytes(bytes));
      assert.deepEqual([found, sha256(tree), tree.length], [`sha256:${root}`, sha, treeBytes]);
      assert.equal(new TreeLayout(bytes).bytes, treeBytes);
    });
  }

  test('writes what an independent program writes', { skip: noPython }, () => {
    for (const bytes of [1, 12_288, 524_288 * 3 - 1]) {
      const content = distinctBytes(bytes, bytes);
      const args = [SCRIPT, headHash.toString('hex'), indexHash.toString('hex')];
      const { stdout } = spawnSync('python3', args, { input: content, encoding: 'utf8' });
      const { tree, root } = treeOf(content);
      assert.equal(stdout, `${root.slice('sha256:'.length)} ${sha256(tree)} ${tree.length}\n`);
    }
  });

  test('writes the same tree in any pieces', () => {
    const content = distinctBytes(700_001);
    const { root } = treeOf(content);
    for (const pieceBytes of [1000, 4095, 4096, 4097, 70_000]) {
      assert.equal(treeOf(content, pieceBytes).root, root);
    }
  });
});

describe('HashTree', () => {
  const content = distinctBytes(524_288 * 5 + 1234);
  const { tree, root } = treeOf(content);
  const blob = blobWith(tree);
  const address = { root, offset: 1000 };

  test('proves right leaves in any ranges, and finds the first wrong one', async () => {
    const opened = await HashTree.open(new MemoryFile(blob), address, decoded);
    assert.equal(opened.header.leafedBytes, content.length);
    assert.equal(opened.firstWrong(content, 0, 0, content.length), -1);
    assert.equal(opened.firstWrong(content, 524_288, 524_288, 8192), -1);
    const last = Math.floor(content.length / 4096) * 4096;
    assert.equal(opened.firstWrong(content, last, last, content.length - last), -1);
    const wrong = Buffer.from(content);
    wrong[600_000]! ^= 1;
    assert.equal(opened.firstWrong(wrong, 4096, 4096, content.length - 4096), 598_016 - 4096);
    // A leaf in the place of another one, and a shortened last leaf.
    assert.equal(opened.firstWrong(content, 0, 4096, 4096), 0);
    assert.equal(opened.firstWrong(content, last, last, content.length - last - 1), 0);
  });

  test('asks only for the nodes that a range needs, and the first ones come with the header', async () => {
    const arriving = new ArrivingFile(blob);
    const opened = await HashTree.open(arriving, address, new DecodedBlocks(1 << 19));
    const end = content.length - 4096;
    const lastLeaf = end - (end % 4096);
    assert.equal(opened.firstWrong(content, 0, 0, 8192), NODE_NOT_LOCAL);
    arriving.loads.length = 0;
    await opened.load(0, 8192);
    assert.equal(opened.firstWrong(content, 0, 0, 8192), -1);
    assert.equal(arriving.loads.length, 2);
    await opened.load(lastLeaf, 4096);
    assert.equal(opened.firstWrong(content, lastLeaf, lastLeaf, 4096), -1);
    const loadedEnd = Math.max(...arriving.loads.map(({ offset, length }) => offset + length));
    assert.ok(loadedEnd <= address.offset + firstTreeBytes(tree.length, 8192), `${loadedEnd}`);
    arriving.loads.length = 0;
    await opened.load(0, 524_288);
    assert.deepEqual(arriving.loads, []);
  });

  test('refuses a changed tree wherever it was changed', async () => {
    const small = distinctBytes(524_288 * 3);
    const made = treeOf(small);
    const fine = blobWith(made.tree);
    let refused = 0;
    for (let at = 1000; at < fine.length; at += 97) {
      const changed = Buffer.from(fine);
      changed[at]! ^= 0x40;
      const prove = async () => {
        const file = new MemoryFile(changed);
        const opened = await HashTree.open(file, { ...address, root: made.root }, decoded);
        return opened.firstWrong(small, 0, 0, small.length);
      };
      await assert.rejects(prove, { code: ErrorCodes.Corrupt }, `${at}`);
      refused++;
    }
    assert.ok(refused > 100);
  });

  test('fetches a damaged header again, and drops a damaged node', async () => {
    const damaged = Buffer.from(blob);
    damaged[1000]! ^= 1;
    damaged[1512 + 4096 + 2 * 4096]! ^= 1;
    const arriving = new ArrivingFile(blob, damaged);
    const opened = await HashTree.open(arriving, address, new DecodedBlocks(1 << 19));
    assert.deepEqual(arriving.forgets, [{ offset: 1000, length: 512 }]);
    await opened.load(0, 4096);
    assert.throws(() => opened.firstWrong(content, 0, 0, 4096), { code: ErrorCodes.Corrupt });
    assert.equal(opened.invalidateWrong(524_288, 4096), false);
    assert.ok(opened.invalidateWrong(0, 4096));
    assert.deepEqual(arriving.forgets[1], { offset: 1512 + 3 * 4096, length: 4096 });
    await opened.load(0, 4096);
    assert.equal(opened.firstWrong(content, 0, 0, 4096), -1);
    assert.equal(opened.invalidateWrong(0, 4096), false);
  });

  test('reads nodes as they are stored, and fetches damaged ones again', async () => {
    const damaged = Buffer.from(blob);
    const topAt = 1512;
    // Node 0 of the bottom level is behind the last two.
    const nodeAt = topAt + 3 * 4096;
    damaged[topAt]! ^= 1;
    damaged[nodeAt + 4095]! ^= 1;
    const arriving = new ArrivingFile(blob, damaged);
    const opened = await HashTree.open(arriving, address, decoded);
    assert.ok(opened.headerBytes.equals(tree.subarray(0, 512)));
    const node = await opened.readNode(0, 0);
    assert.ok(node.equals(blob.subarray(nodeAt, nodeAt + 4096)));
    assert.ok((await opened.readNode(1, 0)).equals(blob.subarray(topAt, topAt + 4096)));
    assert.deepEqual(
      arriving.forgets.map(({ offset }) => offset),
      [topAt, nodeAt],
    );
    damaged.set(blob.subarray(topAt, topAt + 4096), topAt);
    const lasting = await HashTree.open(new MemoryFile(damaged), address, decoded);
    const wrong = { code: ErrorCodes.Corrupt, message: /node 0 of level 0/ };
    await assert.rejects(lasting.readNode(0, 0), wrong);
    await lasting.readNode(0, 1);
  });

  test('refuses another root, a tree past the end of the blob, and a later version', async () => {
    const open = (bytes: Buffer, at: typeof address) =>
      HashTree.open(new MemoryFile(bytes), at, decoded);
    const other = { ...address, root: `sha256:${'0'.repeat(64)}` };
    await assert.rejects(open(blob, other), { code: ErrorCodes.Corrupt, message: /image names/ });
    const cut = blob.subarray(0, blob.length - 1);
    await assert.rejects(open(cut, address), { code: ErrorCodes.Corrupt, message: /end/ });
    const outside = { ...address, offset: blob.length - 100 };
    await assert.rejects(open(blob, outside), { code: ErrorCodes.Corrupt });
    const later = Buffer.from(blob);
    later[1008] = 2;
    const root2 = `sha256:${sha256(later.subarray(1000, 1512))}`;
    await assert.rejects(open(later, { ...address, root: root2 }), {
      code: ErrorCodes.Unsupported,
    });
  });
});
