/**
 * Goal: databases of earlier versions are read, and hold the same snapshots.
 * Method: databases made by the schemas of versions 1 and 2, with every type of record and damaged ones, opened twice.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import Database from 'better-sqlite3';
import { ErrorCodes } from '../errors.js';
import { chainIdOn } from '../oci/chain-id.js';
import { isUnproved, type Kind } from './snapshot.js';
import { SnapshotStore } from './snapshot-store.js';

const DIGEST = `sha256:${'0'.repeat(64)}`;
const REPO_BLOB_URL = 'https://registry.example/v2/app/blobs';
const REMOTE = {
  type: 'blocks',
  lower: { digest: DIGEST, size: 1, repoBlobUrl: REPO_BLOB_URL },
  fileSystem: 'ext4',
};
/** As versions 1 and 2 recorded it. */
const EARLIER_REMOTE = {
  type: 'remote',
  digest: DIGEST,
  sizeBytes: 1,
  repoBlobUrl: REPO_BLOB_URL,
  fileSystem: 'ext4',
};
/** As version 1 made it. */
const VERSION_1 = `
  CREATE TABLE snapshot (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE CHECK (name <> ''),
    parent_id  INTEGER REFERENCES snapshot (id) CHECK (parent_id < id),
    kind       TEXT NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
    labels     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL DEFAULT 0,
    inodes     INTEGER NOT NULL DEFAULT 0,
    layer      TEXT NOT NULL
  ) STRICT;
  CREATE INDEX snapshot_parent ON snapshot (parent_id);
`;
/** The columns that version 2 added. */
const VERSION_2 = `
  ALTER TABLE snapshot ADD COLUMN chain_id TEXT;
  ALTER TABLE snapshot ADD COLUMN namespaces TEXT NOT NULL DEFAULT '[]';
`;

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'schema-'));
});
after(() => rmSync(folder, { recursive: true }));

test('version 1 is migrated: layers are proved by digests and names, never by labels', () => {
  const old = join(folder, 'old.db');
  const database = new Database(old);
  database.exec(VERSION_1);
  const insert = database.prepare(
    `INSERT INTO snapshot (name, parent_id, kind, labels, created_ms, updated_ms, layer)
     VALUES (?, ?, ?, ?, 1, 1, ?)`,
  );
  const digest = (of: string) => `sha256:${of.repeat(64)}`;
  const remote = (of: string) => ({ ...EARLIER_REMOTE, digest: digest(of) });
  const local = { type: 'local', fileSystem: 'ext4' };
  const [a, b, c, evil] = [digest('a'), digest('b'), digest('c'), digest('e')];
  const [ab, abc] = [chainIdOn(a, b), chainIdOn(chainIdOn(a, b), c)];
  const rows: [string, number | null, object, string | undefined][] = [
    [a, null, remote('a'), a],
    [`${ab} ns/3/extract-1 ${ab}`, 1, remote('b'), ab],
    [`ns/9/${abc}`, 2, local, abc],
    [b, null, remote('e'), undefined],
    [chainIdOn(b, c), 4, remote('c'), undefined],
    [`ns/5/${chainIdOn(b, c)}`, 4, local, undefined],
    ['a name of its own', null, local, undefined],
    [`${ab} other`, null, remote('b'), undefined],
    ['sha256:trace', 1, { type: 'trace' }, undefined],
    ['damaged', null, { type: 'later' }, undefined],
  ];
  for (const [name, parent, layer] of rows) {
    const labels = JSON.stringify({ 'containerd.io/snapshot.ref': evil });
    insert.run(name, parent, 'committed', labels, JSON.stringify(layer));
  }
  insert.run('container', 2, 'active', '{}', JSON.stringify({ type: 'files' }));
  database.pragma('user_version = 1');
  database.close();
  for (let start = 0; start < 2; start++) {
    const migrated = SnapshotStore.open(old);
    for (const [name, , , chainId] of rows.slice(0, -1)) {
      assert.equal(migrated.get(name).chainId, chainId, name);
    }
    assert.deepEqual(migrated.get(`ns/9/${abc}`).namespaces, ['ns']);
    assert.deepEqual(migrated.get(a).namespaces, []);
    const refused = migrated.list(() => {}).filter(isUnproved);
    assert.deepEqual(
      refused.map(({ name }) => name),
      [b, chainIdOn(b, c), `${ab} other`, 'sha256:trace'],
    );
    assert.equal(migrated.get('container').chainId, undefined);
    migrated.close();
  }
});

test('version 2 is migrated: layers are recorded as image configs name them', () => {
  const old = join(folder, 'version-2.db');
  const database = new Database(old);
  database.exec(VERSION_1);
  database.exec(VERSION_2);
  const insert = database.prepare(
    `INSERT INTO snapshot (name, kind, labels, created_ms, updated_ms, layer, chain_id, namespaces)
     VALUES (?, ?, '{}', 1, 1, ?, ?, '["ns"]')`,
  );
  const trace = { lower: { kind: 'overlaybd-trace' }, fileSystem: '' };
  const rows: [Kind, object, object][] = [
    ['committed', { type: 'files' }, { type: 'files' }],
    ['active', { type: 'files', announcesTrace: true }, { type: 'files', announces: trace }],
    ['committed', EARLIER_REMOTE, REMOTE],
    [
      'committed',
      { type: 'local', fileSystem: 'xfs' },
      { type: 'blocks', lower: {}, fileSystem: 'xfs', file: 'overlaybd.commit' },
    ],
    ['committed', { type: 'trace' }, { type: 'trace', ...trace }],
    [
      'active',
      { type: 'download', fileSystem: 'ext4' },
      { type: 'download', lower: {}, fileSystem: 'ext4' },
    ],
  ];
  for (const [i, [kind, layer]] of rows.entries()) {
    insert.run(`s${i}`, kind, JSON.stringify(layer), DIGEST);
  }
  insert.run('damaged', 'committed', '{"type":"later"}', null);
  database.pragma('user_version = 2');
  database.close();
  for (let start = 0; start < 2; start++) {
    const migrated = SnapshotStore.open(old);
    for (const [i, [, , layer]] of rows.entries()) {
      const found = migrated.get(`s${i}`);
      assert.deepEqual([found.layer, found.chainId, found.namespaces], [layer, DIGEST, ['ns']]);
    }
    assert.throws(() => migrated.get('damaged'), { code: ErrorCodes.Corrupt });
    assert.deepEqual(
      migrated.layersOf('any', DIGEST).map(({ name }) => name),
      ['s2'],
    );
    migrated.close();
  }
});
