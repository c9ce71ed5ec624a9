/**
 * Goal: the store answers as containerd's metadata store does, keeps every change that it acknowledged, and refuses
 * damaged files.
 * Method: the cases of containerd's metastore suite; random calls against a model of Maps, the file closed and opened
 * in between; files that are no database, are in use, or hold a record that cannot be read.
 */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import { ErrorCodes, ObdError } from '../errors.js';
import type { Kind, Labels, Layer } from './snapshot.js';
import { SnapshotStore } from './snapshot-store.js';

const FILES: Layer = { type: 'files' };
const DIGEST = `sha256:${'0'.repeat(64)}`;
const REPO_BLOB_URL = 'https://registry.example/v2/app/blobs';
const REMOTE: Layer = {
  type: 'blocks',
  lower: { digest: DIGEST, size: 1, repoBlobUrl: REPO_BLOB_URL },
  fileSystem: 'ext4',
};
const NO_USAGE = { sizeBytes: 0, inodes: 0 };

let folder: string;
let path: string;
let store: SnapshotStore;
let count = 0;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'store-'));
});
after(() => rmSync(folder, { recursive: true }));

function add(kind: Kind, name: string, parent = '', layer = FILES, labels: Labels = {}): number {
  const id = store.nextId();
  store.insert({ id, name, parent, kind, labels, layer, chainId: undefined, namespaces: [] });
  return id;
}

function code(call: () => unknown): string | undefined {
  try {
    call();
  } catch (error) {
    if (error instanceof ObdError) return error.code;
    throw error;
  }
  return undefined;
}

beforeEach((context) => {
  path = join(folder, `${count++}.db`);
  store = SnapshotStore.open(path);
  if ('after' in context) context.after(() => store.close());
});

describe('as in containerd', () => {
  test('a snapshot has its id for life, and parents nearest first', () => {
    const base = add('active', 'base-key');
    store.commit('base-key', 'base', { a: '1' }, { sizeBytes: 7, inodes: 3 }, FILES, undefined);
    const top = add('active', 'top-key', 'base');
    store.commit('top-key', 'top', {}, NO_USAGE, FILES, undefined);
    const view = add('view', 'view', 'top');
    assert.deepEqual(
      store.ancestors('view').map(({ id, name }) => [id, name]),
      [
        [top, 'top'],
        [base, 'base'],
      ],
    );
    const { kind, usage, labels, parent } = store.get('base');
    assert.deepEqual(
      [kind, usage, labels, parent],
      ['committed', { sizeBytes: 7, inodes: 3 }, { a: '1' }, ''],
    );
    assert.deepEqual(
      store.list(assert.fail).map(({ name, parent }) => [name, parent]),
      [
        ['base', ''],
        ['top', 'base'],
        ['view', 'top'],
      ],
    );
    assert.equal(new Set([base, top, view]).size, 3);
  });

  test('calls on a missing snapshot fail with NotFound', () => {
    for (const call of [
      () => store.get('x'),
      () => store.ancestors('x'),
      () => store.remove('x'),
      () => store.commit('x', 'y', {}, NO_USAGE, FILES, undefined),
      () => store.setLabels('x', (labels) => labels),
      () => add('active', 'y', 'x'),
    ]) {
      assert.equal(code(call), ErrorCodes.NotFound);
    }
  });

  test('a name is taken once', () => {
    add('active', 'a');
    add('committed', 'c');
    assert.equal(
      code(() => add('active', 'a')),
      ErrorCodes.AlreadyExists,
    );
    assert.equal(
      code(() => add('view', 'c', 'c')),
      ErrorCodes.AlreadyExists,
    );
    assert.equal(
      code(() => store.commit('a', 'c', {}, NO_USAGE, FILES, undefined)),
      ErrorCodes.AlreadyExists,
    );
  });

  test('a parent must be committed, and commit() takes only an active snapshot', () => {
    add('active', 'a');
    add('committed', 'c');
    add('view', 'v', 'c');
    assert.equal(
      code(() => add('active', 'b', 'a')),
      ErrorCodes.InvalidArgument,
    );
    assert.equal(
      code(() => add('active', 'b', 'v')),
      ErrorCodes.InvalidArgument,
    );
    for (const key of ['c', 'v']) {
      const committing = () => store.commit(key, 'd', {}, NO_USAGE, FILES, undefined);
      assert.equal(code(committing), ErrorCodes.FailedPrecondition);
    }
  });

  test('a parent stays while it has a child', () => {
    add('committed', 'c');
    add('view', 'v', 'c');
    assert.equal(
      code(() => store.remove('c')),
      ErrorCodes.FailedPrecondition,
    );
    assert.throws(() => store.remove('c'), /remove/);
    store.remove('v');
    store.remove('c');
    assert.equal(store.has('c'), false);
  });

  test('commit() replaces the labels of the active snapshot, and an empty value removes a label', () => {
    add('active', 'a', '', FILES, { old: 'x', empty: '' });
    assert.deepEqual(store.get('a').labels, { old: 'x' });
    store.commit('a', 'c', { fresh: 'y' }, NO_USAGE, FILES, undefined);
    assert.deepEqual(store.get('c').labels, { fresh: 'y' });
    const { labels } = store.setLabels('c', (old) => ({ ...old, fresh: '', z: '1' }));
    assert.deepEqual(labels, { z: '1' });
  });
});

describe('for this snapshotter', () => {
  test('finds layers by their label on their parent, in order', () => {
    const label = { ref: 'sha256:"1"' };
    add('committed', 'base', '', REMOTE, label);
    add('committed', 'top', 'base', REMOTE, { ...label, other: 'sha256:"2"' });
    add('active', 'a', 'base', FILES, label);
    add('committed', 'another', 'base', FILES, label);
    const named = (parent: string, value: string) =>
      store.committedWithLabel(parent, 'ref', value).map(({ name }) => name);
    assert.deepEqual(named('', label.ref), ['base']);
    assert.deepEqual(named('base', label.ref), ['top', 'another']);
    assert.deepEqual(named('base', 'sha256:"2"'), []);
    assert.deepEqual(named('top', label.ref), []);
  });

  test('an image is in use through layers of files, not through other images', () => {
    const lower = add('committed', 'lower', '', REMOTE);
    const image = add('committed', 'image', 'lower', REMOTE);
    add('committed', 'files', 'image');
    assert.equal(store.isInUse(image), false);
    add('active', 'container', 'files');
    assert.equal(store.isInUse(image), true);
    assert.equal(store.isInUse(lower), false);
    add('view', 'v', 'lower');
    assert.equal(store.isInUse(lower), true);
  });

  test('a lower is kept unabridged, also keys of later versions', () => {
    const lower = { digest: DIGEST, size: 5, repoBlobUrl: REPO_BLOB_URL, kind: 'x', later: [1] };
    const trace = { type: 'trace', lower, fileSystem: 'ext4', file: 'trace' } as const;
    const blocks = { type: 'blocks', lower, fileSystem: 'ext4' } as const;
    add('committed', 'trace', '', trace);
    add('committed', 'blocks', '', blocks);
    store.setRepository('blocks', 'https://registry.example/v2/other/blobs');
    assert.deepEqual(store.get('trace').layer, trace);
    const moved = { ...lower, repoBlobUrl: 'https://registry.example/v2/other/blobs' };
    assert.deepEqual(store.get('blocks').layer, { ...blocks, lower: moved });
  });

  test('never gives an id twice', () => {
    const id = add('active', 'a');
    store.remove('a');
    store.close();
    store = SnapshotStore.open(path);
    assert.equal(store.nextId(), id + 1);
    store.reserveIdsUpTo(100);
    assert.equal(store.nextId(), 101);
  });
});

test('random calls, also across reopening, agree with a model', () => {
  interface Entry {
    kind: Kind;
    parent: string;
    labels: Labels;
  }
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'e');
  const labels = fc.dictionary(fc.constantFrom('l', 'm'), fc.string({ maxLength: 3 }));
  const calls = fc.oneof(
    fc.record({
      do: fc.constant('add' as const),
      name,
      parent: fc.oneof(fc.constant(''), name),
      kind: fc.constantFrom<Kind>('active', 'view', 'committed'),
      labels,
    }),
    fc.record({ do: fc.constant('commit' as const), name, key: name, labels }),
    fc.record({ do: fc.constant('remove' as const), name }),
    fc.record({ do: fc.constant('label' as const), name, labels }),
    fc.record({ do: fc.constant('reopen' as const) }),
  );
  const sound = (all: Labels) =>
    Object.fromEntries(Object.entries(all).filter(([, v]) => v !== ''));
  let run = 0;
  fc.assert(
    fc.property(fc.array(calls, { maxLength: 40 }), (script) => {
      const file = join(folder, `model-${run++}.db`);
      const model = new Map<string, Entry>();
      store.close();
      store = SnapshotStore.open(file);
      for (const call of script) {
        if (call.do === 'reopen') {
          store.close();
          store = SnapshotStore.open(file);
        } else if (call.do === 'add') {
          const parent = model.get(call.parent);
          const want =
            call.parent !== '' && parent === undefined
              ? ErrorCodes.NotFound
              : parent !== undefined && parent.kind !== 'committed'
                ? ErrorCodes.InvalidArgument
                : model.has(call.name)
                  ? ErrorCodes.AlreadyExists
                  : undefined;
          assert.equal(
            code(() => add(call.kind, call.name, call.parent, FILES, call.labels)),
            want,
          );
          if (want === undefined)
            model.set(call.name, {
              kind: call.kind,
              parent: call.parent,
              labels: sound(call.labels),
            });
        } else if (call.do === 'commit') {
          const entry = model.get(call.key);
          const want = model.has(call.name)
            ? ErrorCodes.AlreadyExists
            : entry === undefined
              ? ErrorCodes.NotFound
              : entry.kind !== 'active'
                ? ErrorCodes.FailedPrecondition
                : undefined;
          assert.equal(
            code(() => store.commit(call.key, call.name, call.labels, NO_USAGE, FILES, undefined)),
            want,
          );
          if (want === undefined) {
            model.set(call.name, {
              kind: 'committed',
              parent: entry?.parent ?? '',
              labels: sound(call.labels),
            });
            model.delete(call.key);
          }
        } else if (call.do === 'remove') {
          const child = [...model.values()].some(({ parent }) => parent === call.name);
          const want = !model.has(call.name)
            ? ErrorCodes.NotFound
            : child
              ? ErrorCodes.FailedPrecondition
              : undefined;
          assert.equal(
            code(() => store.remove(call.name)),
            want,
          );
          if (want === undefined) model.delete(call.name);
        } else {
          const entry = model.get(call.name);
          const want = entry === undefined ? ErrorCodes.NotFound : undefined;
          assert.equal(
            code(() => store.setLabels(call.name, () => call.labels)),
            want,
          );
          if (entry !== undefined) entry.labels = sound(call.labels);
        }
        const found = store
          .list(assert.fail)
          .map(({ name, kind, parent, labels }) => [name, { kind, parent, labels }] as const);
        assert.deepEqual(new Map(found), model);
      }
    }),
    { numRuns: 25 },
  );
});

describe('a file that is', () => {
  test('in use is Busy', () => {
    assert.equal(
      code(() => SnapshotStore.open(path)),
      ErrorCodes.Busy,
    );
  });

  test('no database, or one of another version, is refused', () => {
    const other = join(folder, 'other.db');
    writeFileSync(
      other,
      'not a database, and longer than a header of SQLite has to be.'.repeat(20),
    );
    assert.equal(
      code(() => SnapshotStore.open(other)),
      ErrorCodes.Corrupt,
    );
    const later = join(folder, 'later.db');
    const database = new Database(later);
    database.pragma('user_version = 99');
    database.close();
    assert.equal(
      code(() => SnapshotStore.open(later)),
      ErrorCodes.Unsupported,
    );
    assert.equal(
      code(() => SnapshotStore.open(join(folder, 'no', 'folder.db'))),
      ErrorCodes.Io,
    );
  });

  test('left behind by a killed process has all that was answered', () => {
    add('active', 'a');
    const copy = join(folder, 'copy.db');
    copyFileSync(path, copy);
    copyFileSync(`${path}-wal`, `${copy}-wal`);
    const second = SnapshotStore.open(copy);
    assert.equal(second.get('a').kind, 'active');
    second.close();
  });

  test('damaged in one record serves the others', () => {
    add('committed', 'good');
    add('committed', 'bad-layer', 'good');
    add('committed', 'bad-labels', 'good');
    add('committed', 'no-layer', 'good');
    store.close();
    const database = new Database(path);
    database.exec(`UPDATE snapshot SET layer = '{"type":"later"}' WHERE name = 'bad-layer'`);
    database.exec(`UPDATE snapshot SET labels = '{' WHERE name = 'bad-labels'`);
    database.exec(
      `UPDATE snapshot SET layer = '{', labels = '{"ref":"x"}' WHERE name = 'no-layer'`,
    );
    database.close();
    store = SnapshotStore.open(path);
    const problems: string[] = [];
    const listed = store.list((problem) => problems.push(problem.message));
    assert.deepEqual(
      listed.map(({ name }) => name),
      ['good'],
    );
    assert.match(
      problems.join('\n'),
      /snapshot 2, "bad-layer".*\n?[\s\S]*snapshot 3, "bad-labels"/,
    );
    assert.equal(
      code(() => store.get('bad-layer')),
      ErrorCodes.Corrupt,
    );
    assert.deepEqual(
      [1, 2, 3, 4, 5].map((id) => store.hasId(id)),
      [true, true, true, true, false],
    );
    assert.deepEqual(store.layersOf('any', 'any'), []);
    assert.deepEqual(store.committedWithLabel('good', 'ref', 'x'), []);
    assert.equal(store.isInUse(1), false);
    store.remove('no-layer');
    store.remove('bad-layer');
    store.remove('bad-labels');
    store.remove('good');
  });
});
