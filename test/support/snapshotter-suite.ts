/**
 * containerd's requirements for a snapshotter: its conformance suite (core/snapshots/testsuite) check by check, over
 * gRPC to a real process, with real mounts. The checks run concurrently, as there.
 */
import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type SnapshotsClient, withMounted } from './snapshotter-process.js';

const MANY_LAYERS = 128;

type Change = (directory: string) => void;

let count = 0;
/** Names are unique to a check. */
const unique = (what: string) => `${what}-${count++}`;

export function snapshotterSuite(client: () => SnapshotsClient): void {
  const layer = async (parent: string, change: Change, labels = {}): Promise<string> => {
    const key = unique('key');
    const name = unique('layer');
    await withMounted(await client().prepare(key, parent), change);
    await client().commit(name, key, labels);
    return name;
  };
  const seen = async (parent: string, look: Change): Promise<void> => {
    const key = unique('seen');
    await withMounted(await client().view(key, parent), look);
    await client().remove(key);
  };
  const rejects = (call: Promise<unknown>, code: string) => assert.rejects(call, { code });
  const write = (path: string, text: string) => (directory: string) =>
    writeFileSync(join(directory, path), text);
  const holds = (path: string, text: string) => (directory: string) =>
    assert.equal(readFileSync(join(directory, path), 'utf8'), text);

  test('Basic: a layer is written, committed, stood on, listed and removed', async () => {
    const key = unique('basic');
    const base = unique('base');
    await withMounted(await client().prepare(key, ''), (directory) => {
      write('foo', 'foo\n')(directory);
      mkdirSync(join(directory, 'a/b/c'), { recursive: true });
      mkdirSync(join(directory, 'a/b/d'));
    });
    await client().commit(base, key, { basic: 'yes' });
    await rejects(client().stat(key), 'ERR_NOT_FOUND');
    const info = await client().stat(base);
    assert.deepEqual([info.kind, info.parent], ['COMMITTED', '']);

    const next = unique('next');
    await withMounted(await client().prepare(next, base), (directory) => {
      holds('foo', 'foo\n')(directory);
      rmSync(join(directory, 'a/b/c'), { recursive: true });
      write('bar', 'bar\n')(directory);
    });
    const top = unique('top');
    await client().commit(top, next);
    await seen(top, (directory) => {
      assert.deepEqual(readdirSync(join(directory, 'a/b')), ['d']);
      assert.deepEqual(readdirSync(directory).sort(), ['a', 'bar', 'foo']);
    });
    const listed = await client().list(`name==${base}`, `name==${top}`);
    assert.deepEqual(listed, [await client().stat(base), await client().stat(top)]);
    await assert.rejects(client().remove(base), {
      code: 'ERR_FAILED_PRECONDITION',
      message: /remove/,
    });
    await client().remove(top);
    await client().remove(base);
    await rejects(client().remove(base), 'ERR_NOT_FOUND');
  });

  test('Stat of an active snapshot, a view and a committed one', async () => {
    const base = await layer('', () => {});
    const [active, view] = [unique('active'), unique('view')];
    await client().prepare(active, base);
    await client().view(view, base);
    for (const [name, kind] of [
      [active, 'ACTIVE'],
      [view, 'VIEW'],
    ] as const) {
      const info = await client().stat(name);
      assert.deepEqual([info.name, info.kind, info.parent], [name, kind, base]);
    }
    await rejects(client().stat(unique('nothing')), 'ERR_NOT_FOUND');
  });

  test('Transitivity: each layer knows the one below', async () => {
    let name = '';
    for (let i = 0; i < 3; i++) {
      const parent = name;
      name = await layer(parent, write(`${i}`, `${i}`));
      assert.equal((await client().stat(name)).parent, parent);
    }
    await seen(name, (directory) =>
      assert.deepEqual(readdirSync(directory).sort(), ['0', '1', '2']),
    );
  });

  test('Prepare and View refuse a taken key, and a parent that is missing or active', async () => {
    const active = unique('active');
    await client().prepare(active, '');
    for (const make of [client().prepare, client().view].map((call) => call.bind(client()))) {
      await rejects(make(active, ''), 'ERR_ALREADY_EXISTS');
      await rejects(make(unique('x'), unique('missing')), 'ERR_NOT_FOUND');
      await rejects(make(unique('x'), active), 'ERR_INVALID_ARGUMENT');
      await rejects(make('', ''), 'ERR_INVALID_ARGUMENT');
    }
    const base = await layer('', () => {});
    await rejects(client().commit(base, active), 'ERR_ALREADY_EXISTS');
    await rejects(client().commit('', active), 'ERR_INVALID_ARGUMENT');
    await rejects(client().commit(unique('x'), base), 'ERR_FAILED_PRECONDITION');
    await rejects(client().commit(unique('x'), unique('missing')), 'ERR_NOT_FOUND');
    await rejects(client().mounts(base), 'ERR_FAILED_PRECONDITION');
    await rejects(client().mounts(unique('missing')), 'ERR_NOT_FOUND');
    await rejects(client().usage(unique('missing')), 'ERR_NOT_FOUND');
    assert.deepEqual((await client().mounts(active))[0]?.type, 'bind');
  });

  test('Update of labels, in whole and by mask, and of nothing else', async () => {
    const base = await layer('', () => {});
    const [active, view] = [unique('active'), unique('view')];
    await client().prepare(active, base);
    await client().view(view, base);
    for (const name of [active, view, base]) {
      const before = await client().stat(name);
      const whole = await client().update({
        name,
        parent: 'nothing',
        labels: { l1: 'v1', l2: 'v2', l3: 'v3' },
      });
      assert.deepEqual(whole.labels, { l1: 'v1', l2: 'v2', l3: 'v3' });
      assert.deepEqual([whole.parent, whole.createdAt], [before.parent, before.createdAt]);
      const labels = { l1: 'updated', l2: 'not asked for' };
      const one = await client().update({ name, labels }, 'labels.l1', 'labels.l3');
      assert.deepEqual(one.labels, { l1: 'updated', l2: 'v2' });
      const all = await client().update({ name, labels: { 'l.4': 'v4' } }, 'labels');
      assert.deepEqual(all.labels, { 'l.4': 'v4' });
      await rejects(client().update({ name, labels: {} }, 'parent'), 'ERR_INVALID_ARGUMENT');
      assert.deepEqual(await client().stat(name), all);
    }
    await rejects(client().update({ name: unique('missing'), labels: {} }), 'ERR_NOT_FOUND');
  });

  test('Remove: a key can be used again', async () => {
    const key = unique('again');
    for (let i = 0; i < 2; i++) {
      await withMounted(await client().prepare(key, ''), (directory) => {
        assert.deepEqual(readdirSync(directory), []);
        write('x', 'x')(directory);
      });
      await client().remove(key);
    }
  });

  test('Remove of a parent fails', async () => {
    const base = await layer('', () => {});
    const middle = await layer(base, () => {});
    const top = await layer(middle, () => {});
    for (const name of [base, middle])
      await rejects(client().remove(name), 'ERR_FAILED_PRECONDITION');
    for (const name of [top, middle, base]) await client().remove(name);
  });

  test('Walk by kind, name, parent and labels', async () => {
    const mark = unique('walk');
    const base = await layer('', () => {}, { mark, 'with.dots/and/slashes': mark });
    const active = unique('active');
    await client().prepare(active, base, { mark });
    const names = async (...filters: string[]) =>
      (await client().list(...filters)).map(({ name }) => name);
    assert.deepEqual(await names(`labels.mark==${mark}`), [base, active]);
    assert.deepEqual(await names(`labels.mark==${mark},kind==active`), [active]);
    assert.deepEqual(await names(`labels."with.dots/and/slashes"==${mark}`), [base]);
    assert.deepEqual(await names(`parent=="${base}"`), [active]);
    assert.deepEqual(await names(`name==${base}`, `name==${active}`), [base, active]);
    await rejects(client().list('name=x'), 'ERR_INVALID_ARGUMENT');
    assert.ok((await names()).includes(base));
  });

  test('files are overwritten from layer to layer', async () => {
    let name = await layer('', write('file', 'start'));
    for (let i = 0; i < 5; i++) {
      name = await layer(name, write('file', `turn ${i}`));
      await seen(name, holds('file', `turn ${i}`));
    }
  });

  test('a directory removed and made again has none of its old files', async () => {
    const base = await layer('', (directory) => {
      mkdirSync(join(directory, 'dir'));
      write('dir/old', 'old')(directory);
    });
    const top = await layer(base, (directory) => {
      rmSync(join(directory, 'dir'), { recursive: true });
      mkdirSync(join(directory, 'dir'));
      write('dir/new', 'new')(directory);
    });
    await seen(top, (directory) => assert.deepEqual(readdirSync(join(directory, 'dir')), ['new']));
  });

  test('ownership comes from the topmost layer', async () => {
    const base = await layer('', (directory) => {
      mkdirSync(join(directory, 'opt/a'), { recursive: true });
      write('opt/a/b', 'x')(directory);
    });
    const top = await layer(base, (directory) => {
      chownSync(join(directory, 'opt'), 1, 1);
      chownSync(join(directory, 'opt/a/b'), 2, 2);
    });
    await seen(top, (directory) => {
      assert.equal(statSync(join(directory, 'opt')).uid, 1);
      assert.equal(statSync(join(directory, 'opt/a')).uid, 0);
      assert.equal(statSync(join(directory, 'opt/a/b')).gid, 2);
    });
  });

  test('modes are kept by a commit', async () => {
    const modes = [0o700, 0o711, 0o750, 0o1777, 0o2755];
    const base = await layer('', (directory) => {
      for (const mode of modes) {
        mkdirSync(join(directory, `d${mode}`));
        chmodSync(join(directory, `d${mode}`), mode);
      }
    });
    const top = await layer(base, write(`d${modes[0]}/x`, 'x'));
    await seen(top, (directory) => {
      for (const mode of modes) {
        assert.equal(statSync(join(directory, `d${mode}`)).mode & 0o7777, mode);
      }
    });
  });

  test('files deleted in a layer are gone above it', async () => {
    const base = await layer('', (directory) => {
      write('a', 'a')(directory);
      write('b', 'b')(directory);
    });
    const top = await layer(base, (directory) => rmSync(join(directory, 'a')));
    const last = await layer(top, write('c', 'c'));
    await seen(last, (directory) => assert.deepEqual(readdirSync(directory).sort(), ['b', 'c']));
  });

  test('a file is moved, and a hard link made, from a lower layer', async () => {
    const base = await layer('', (directory) => {
      write('old', 'text')(directory);
      write('linked', 'link')(directory);
    });
    const top = await layer(base, (directory) => {
      renameSync(join(directory, 'old'), join(directory, 'new'));
      linkSync(join(directory, 'linked'), join(directory, 'link'));
    });
    await seen(top, (directory) => {
      assert.ok(!existsSync(join(directory, 'old')));
      holds('new', 'text')(directory);
      holds('link', 'link')(directory);
    });
  });

  test('a view cannot be written to', async () => {
    const one = await layer('', write('a', 'a'));
    const two = await layer(one, write('b', 'b'));
    for (const parent of ['', one, two]) {
      await seen(parent, (directory) =>
        assert.throws(() => write('x', 'x')(directory), { code: 'EROFS' }),
      );
    }
  });

  test('Stat during a List does not wait for it', async () => {
    for (const { name } of await client().list('kind==committed')) {
      await client()
        .stat(name)
        .catch((error) => assert.equal(error.code, 'ERR_NOT_FOUND'));
    }
  });

  test('the root directory is 0755, and as the layer below has it', async () => {
    const key = unique('root');
    await withMounted(await client().prepare(key, ''), (directory) => {
      assert.equal(lstatSync(directory).mode & 0o7777, 0o755);
      chmodSync(directory, 0o751);
      chownSync(directory, 3, 4);
    });
    const base = unique('root');
    await client().commit(base, key);
    const top = await layer(base, () => {});
    await seen(top, (directory) => {
      const { uid, gid, mode } = lstatSync(directory);
      assert.deepEqual([uid, gid, mode & 0o7777], [3, 4, 0o751]);
    });
  });

  test('Usage counts the files of the layer alone, each once', async () => {
    const kib = 1 << 10;
    const base = await layer('', (directory) => {
      write('a', 'x'.repeat(100 * kib))(directory);
      linkSync(join(directory, 'a'), join(directory, 'again'));
    });
    const { size, inodes } = await client().usage(base);
    assert.ok(size >= 100 * kib && size < 200 * kib, String(size));
    assert.equal(inodes, 2);
    const key = unique('active');
    const mounts = await client().prepare(key, base);
    const before = await client().usage(key);
    await withMounted(mounts, write('b', 'x'.repeat(50 * kib)));
    const after = await client().usage(key);
    assert.equal(after.inodes, before.inodes + 1);
    assert.ok(after.size - before.size >= 50 * kib);
  });

  test('128 layers are mounted, and show the files of all', async () => {
    let parent = '';
    for (let i = 1; i <= MANY_LAYERS; i++) {
      parent = await layer(parent, (directory) => {
        write('top', `${i}`)(directory);
        write(`${i}`, '')(directory);
        mkdirSync(join(directory, `dir${i}`));
        if (i > 1) rmSync(join(directory, `dir${i - 1}`), { recursive: true });
      });
    }
    await seen(parent, (directory) => {
      holds('top', `${MANY_LAYERS}`)(directory);
      assert.equal(readdirSync(directory).length, MANY_LAYERS + 2);
    });
  });
}
