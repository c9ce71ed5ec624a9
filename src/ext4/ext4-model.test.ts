/**
 * Goal: after any operations, a file system holds the same tree as the simplest model, and e2fsck finds no errors.
 * Method: random sequences of operations on a small disk (so that space is used again), flushed and opened again in
 * between; then everything is read back and e2fsck is asked. Discarded blocks turn to 0xdd.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { e2fsckComplaints, NO_E2FSCK } from '../../test/support/e2fsck.js';
import { SparseDevice } from '../../test/support/sparse-device.js';
import { ErrorCodes, hasCode } from '../errors.js';
import { type Attributes, Ext4FileSystem, type NodeSpec } from './ext4-file-system.js';
import { ROOT_INODE } from './superblock.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-ext4-model-'));
after(() => rmSync(directory, { recursive: true }));
const DISK_BYTES = 24 << 20;

/** A node of the model; `children` for directories only. */
interface Node {
  inode: number;
  readonly spec: NodeSpec;
  attributes: Attributes;
  content: Buffer;
  xattrs: Map<string, Uint8Array>;
  links: number;
  readonly children: Map<string, Node>;
}

type Operation =
  | { readonly op: 'create'; at: number; name: string; spec: NodeSpec; attributes: Attributes }
  | { readonly op: 'fill'; at: number; pieces: ReadonlyArray<readonly [number, number]> }
  | { readonly op: 'many'; at: number; count: number }
  | { readonly op: 'link'; at: number; name: string; to: number }
  | { readonly op: 'remove'; at: number; pick: number }
  | { readonly op: 'attributes'; at: number; attributes: Attributes }
  | { readonly op: 'xattrs'; at: number; xattrs: ReadonlyArray<readonly [string, Uint8Array]> }
  | { readonly op: 'reopen' };

/** deepEqual tells objects without a prototype from others. */
const PLAIN = { noNullPrototype: true };
const time = fc.record(
  {
    // For every date from 2310 to 2378, e2fsck suspects an old kernel's mistake.
    seconds: fc.oneof(
      fc.integer({ min: -(2 ** 31), max: 2 ** 33 + 2 ** 31 - 1 }),
      fc.constant(2 ** 34 - 2 ** 31 - 1),
    ),
    nanoseconds: fc.nat(999_999_999),
  },
  PLAIN,
);
const id = fc.oneof(fc.nat(3), fc.nat(0xffff_fffe));
const attributes: fc.Arbitrary<Attributes> = fc.record(
  {
    mode: fc.nat(0o7777),
    uid: id,
    gid: id,
    mtime: time,
    atime: time,
    ctime: time,
  },
  PLAIN,
);
const name = fc.oneof(
  fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', '.wh', '\xff\xe9', 'x'.repeat(255)),
  fc.string({ minLength: 1, maxLength: 60, unit: fc.constantFrom('p', 'q', '\x80', '\n') }),
);
const linkTarget = fc
  .oneof(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 4095 }))
  .map((length) => Buffer.alloc(length, 't'));
const spec: fc.Arbitrary<NodeSpec> = fc.oneof(
  { weight: 3, arbitrary: fc.constant<NodeSpec>({ kind: 'file' }) },
  { weight: 3, arbitrary: fc.constant<NodeSpec>({ kind: 'directory' }) },
  fc.constant<NodeSpec>({ kind: 'fifo' }),
  fc.record({
    kind: fc.constantFrom<'character' | 'block'>('character', 'block'),
    major: fc.integer({ min: 1, max: 4095 }),
    minor: fc.nat(0xf_ffff),
  }),
  fc.record({ kind: fc.constant<'symlink'>('symlink'), target: linkTarget }),
);
const lengthBytes = fc.oneof(
  fc.nat(9000),
  fc.nat(60).map((blocks) => blocks * 4096),
);
const pieces = fc.oneof(
  fc.array(fc.tuple(lengthBytes, lengthBytes), { maxLength: 6 }),
  // Every second block: as many extents as blocks, and a tree with nodes.
  fc.nat(800).map((count) => Array.from({ length: count }, () => [4096, 4096] as const)),
);
const xattr = fc.tuple(
  fc.constantFrom('user.a', 'user.long-name', 'trusted.b', 'security.capability'),
  fc.oneof(fc.nat(30), fc.nat(900)).map((length) => Buffer.alloc(length, 'v')),
);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('create' as const),
      at: fc.nat(),
      name,
      spec,
      attributes,
    }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('fill' as const), at: fc.nat(), pieces }) },
  fc.record({ op: fc.constant('many' as const), at: fc.nat(), count: fc.nat(300) }),
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('link' as const), at: fc.nat(), name, to: fc.nat() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('remove' as const), at: fc.nat(), pick: fc.nat() }),
  },
  fc.record({ op: fc.constant('attributes' as const), at: fc.nat(), attributes }),
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('xattrs' as const),
      at: fc.nat(),
      xattrs: fc.array(xattr, { maxLength: 4 }),
    }),
  },
  fc.record({ op: fc.constant('reopen' as const) }),
);

class Model {
  readonly device = new SparseDevice(join(directory, 'image'), DISK_BYTES);
  readonly root: Node;
  fs = Ext4FileSystem.format(this.device, { uuid: Buffer.alloc(16, 3) });

  constructor() {
    const zero = { seconds: 0, nanoseconds: 0 };
    const times = { mtime: zero, atime: zero, ctime: zero };
    const plain = { uid: 0, gid: 0, ...times };
    this.root = newNode(ROOT_INODE, { kind: 'directory' }, { mode: 0o755, ...plain });
    const lost = this.fs.lookup(ROOT_INODE, Buffer.from('lost+found')) as number;
    const attributes = { mode: 0o700, ...plain };
    this.root.children.set('lost+found', newNode(lost, { kind: 'directory' }, attributes));
  }

  run(operation: Operation): void {
    switch (operation.op) {
      case 'create':
        this.#create(pick(this.#directories(), operation.at), operation);
        break;
      case 'many':
        this.#many(pick(this.#directories(), operation.at), operation.count);
        break;
      case 'fill':
        this.#fill(pick(this.#all('file'), operation.at), operation.pieces);
        break;
      case 'link':
        this.#link(pick(this.#directories(), operation.at) as Node, operation);
        break;
      case 'remove':
        this.#remove(pick(this.#directories(), operation.at) as Node, operation.pick);
        break;
      case 'attributes': {
        const node = pick(this.#all(undefined), operation.at) as Node;
        this.fs.setAttributes(node.inode, operation.attributes);
        node.attributes = operation.attributes;
        break;
      }
      case 'xattrs': {
        const node = pick(this.#all(undefined), operation.at) as Node;
        node.xattrs = new Map(operation.xattrs);
        this.fs.setXattrs(node.inode, node.xattrs);
        break;
      }
      case 'reopen':
        this.fs.flush();
        this.fs = Ext4FileSystem.open(this.device);
        break;
    }
  }

  /** Checks that the file system holds the same tree as the model. */
  check(): void {
    const pending: Node[] = [this.root];
    const seen = new Set<Node>();
    for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
      if (seen.has(node)) continue;
      seen.add(node);
      this.#checkNode(node);
      const entries = [
        ...this.fs.entries(node.spec.kind === 'directory' ? node.inode : ROOT_INODE),
      ];
      if (node.spec.kind !== 'directory') continue;
      const found = entries.map((entry) => [
        Buffer.from(entry.name).toString('latin1'),
        entry.inode,
      ]);
      const wanted = [...node.children].map(([key, child]) => [key, child.inode]);
      assert.deepEqual(found.sort(), wanted.sort());
      pending.push(...node.children.values());
    }
  }

  #checkNode(node: Node): void {
    const { kind, links, sizeBytes, major, minor, ...attributes } = this.fs.stat(node.inode);
    assert.equal(kind, node.spec.kind);
    assert.deepEqual(attributes, node.attributes);
    assert.deepEqual(
      this.fs.xattrs(node.inode),
      new Map([...node.xattrs].map(([key, value]) => [key, Buffer.from(value)])),
    );
    const subdirectories = [...node.children.values()].filter((c) => c.spec.kind === 'directory');
    assert.equal(links, kind === 'directory' ? 2 + subdirectories.length : node.links);
    if (node.spec.kind === 'file') {
      assert.equal(sizeBytes, node.content.length);
      const content = Buffer.alloc(sizeBytes, 1);
      this.fs.readFile(node.inode, content, 0);
      assert.ok(content.equals(node.content), 'the content differs');
    } else if (node.spec.kind === 'symlink') {
      assert.deepEqual(this.fs.readLink(node.inode), node.spec.target);
    } else if (node.spec.kind === 'character' || node.spec.kind === 'block') {
      assert.deepEqual([major, minor], [node.spec.major, node.spec.minor]);
    }
  }

  #create(parent: Node | undefined, operation: Operation & { op: 'create' }): void {
    if (parent === undefined || parent.children.has(operation.name)) return;
    const { spec, attributes } = operation;
    const inode = this.fs.create(parent.inode, bytesOf(operation.name), spec, attributes);
    parent.children.set(operation.name, newNode(inode, spec, attributes));
  }

  #many(parent: Node | undefined, count: number): void {
    if (parent === undefined) return;
    for (let i = 0; i < count; i++) {
      const { attributes } = this.root;
      const name = `many-names-in-one-directory-${i}`;
      this.#create(parent, { op: 'create', at: 0, name, spec: { kind: 'file' }, attributes });
    }
  }

  #fill(node: Node | undefined, pieces: ReadonlyArray<readonly [number, number]>): void {
    if (node === undefined) return;
    const writer = this.fs.writer(node.inode);
    const parts: Buffer[] = [];
    for (const [i, [dataBytes, holeBytes]] of pieces.entries()) {
      const data = Buffer.alloc(dataBytes, i + 1);
      writer.write(data);
      writer.hole(holeBytes);
      parts.push(data, Buffer.alloc(holeBytes));
    }
    writer.end();
    node.content = Buffer.concat(parts);
  }

  #link(parent: Node, operation: Operation & { op: 'link' }): void {
    const nodes = this.#all(undefined).filter((node) => node.spec.kind !== 'directory');
    const node = pick(nodes, operation.to);
    if (node === undefined || parent.children.has(operation.name)) return;
    this.fs.link(parent.inode, bytesOf(operation.name), node.inode);
    parent.children.set(operation.name, node);
    node.links++;
  }

  #remove(parent: Node, index: number): void {
    const name = pick([...parent.children.keys()], index);
    if (name === undefined || name === 'lost+found') return;
    this.fs.remove(parent.inode, bytesOf(name));
    dropLinks(parent.children.get(name) as Node);
    parent.children.delete(name);
  }

  #directories(): Node[] {
    return this.#all('directory');
  }

  #all(kind: NodeSpec['kind'] | undefined): Node[] {
    const found = new Set<Node>();
    const visit = (node: Node): void => {
      if (kind === undefined || node.spec.kind === kind) found.add(node);
      for (const child of node.children.values()) visit(child);
    };
    visit(this.root);
    return [...found];
  }
}

function newNode(inode: number, spec: NodeSpec, attributes: Attributes): Node {
  const content = Buffer.alloc(0);
  return { inode, spec, attributes, content, xattrs: new Map(), links: 1, children: new Map() };
}

function dropLinks(node: Node): void {
  node.links--;
  for (const child of node.children.values()) dropLinks(child);
}

function pick<T>(from: readonly T[], index: number): T | undefined {
  return from[index % from.length];
}

function bytesOf(name: string): Buffer {
  return Buffer.from(name, 'latin1');
}

test("any sequence of operations leaves the model's tree and no error for e2fsck", {
  skip: NO_E2FSCK,
}, () => {
  const sequences = fc.array(operation, { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(sequences, (operations) => {
      const model = new Model();
      try {
        for (const operation of operations) model.run(operation);
        model.check();
        model.run({ op: 'reopen' });
        model.check();
        assert.deepEqual(e2fsckComplaints(model.device.path), []);
      } catch (error) {
        // A full disk ends the sequence: the file system must be thrown away.
        if (!hasCode(error, ErrorCodes.NoSpace)) throw error;
      } finally {
        model.device.close();
      }
    }),
    { numRuns: 20 },
  );
});
