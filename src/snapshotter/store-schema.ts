/**
 * The schema of the store's database, and the migration from earlier versions.
 *
 * Version 1 did not check the chain ID of a layer. Its records are checked here, once. A remote layer's chain ID is
 * proved if its digest and its parent's chain ID give its name. containerd checked the digest of a layer that it
 * unpacked, and committed it under a name with the chain ID. Names are used
 * and not labels, as clients can change labels.
 *
 * Versions 1 and 2 recorded layers in a vocabulary of their own (earlier-records.ts); version 3 has what an image config
 * says of each. A record that cannot be read stays as it is, and is reported when it is listed.
 */
import type Database from 'better-sqlite3';
import { ErrorCodes, ObdError } from '../errors.js';
import { chainIdOn } from '../oci/chain-id.js';
import { parseEarlierLayer, presentLayer } from './earlier-records.js';

const SCHEMA_VERSION = 3;

const SCHEMA_1 = `
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

const SCHEMA_2 = `
  ALTER TABLE snapshot ADD COLUMN chain_id TEXT;
  ALTER TABLE snapshot ADD COLUMN namespaces TEXT NOT NULL DEFAULT '[]';
`;

/** The chain ID begins the names of layers that were served lazily, and ends the names that containerd commits. */
const LAZY_NAME = /^(sha256:[0-9a-f]{64})(?: |$)/;
const COMMITTED_NAME = /^([^/]+)\/[0-9]+\/(sha256:[0-9a-f]{64})$/;

interface Row {
  readonly id: number;
  readonly name: string;
  readonly parent_id: number | null;
  readonly layer: string;
}

/** @throws {ObdError} `Unsupported` for the schema of a later version. */
export function migrate(database: Database.Database, path: string): void {
  const version = database.pragma('user_version', { simple: true });
  if (version === SCHEMA_VERSION) return;
  if (version !== 0 && version !== 1 && version !== 2) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot open "${path}": its schema has version ${version}, and this build knows ${SCHEMA_VERSION}; use the obd-snapshotter that wrote it`,
      { path },
    );
  }
  database
    .transaction(() => {
      if (version < 1) database.exec(SCHEMA_1);
      if (version < 2) {
        database.exec(SCHEMA_2);
        proveLayers(database);
      }
      rewriteLayers(database);
      database.pragma(`user_version = ${SCHEMA_VERSION}`);
    })
    .immediate();
}

/** Parents have smaller ids than their children, and so are proved before them. */
function proveLayers(database: Database.Database): void {
  const rows = database
    .prepare(`SELECT id, name, parent_id, layer FROM snapshot WHERE kind = 'committed' ORDER BY id`)
    .all() as Row[];
  const update = database.prepare('UPDATE snapshot SET chain_id = ?, namespaces = ? WHERE id = ?');
  const proved = new Map<number, string>();
  for (const row of rows) {
    const below = row.parent_id === null ? '' : proved.get(row.parent_id);
    const chainId = below === undefined ? undefined : chainIdOf(row, below);
    if (chainId === undefined) continue;
    proved.set(row.id, chainId);
    const [, namespace] = COMMITTED_NAME.exec(row.name) ?? [];
    update.run(chainId, JSON.stringify(namespace === undefined ? [] : [namespace]), row.id);
  }
}

function chainIdOf({ name, layer }: Row, below: string): string | undefined {
  const parsed = parseEarlierLayer(layer);
  if (parsed?.type === 'local') return COMMITTED_NAME.exec(name)?.[2];
  if (parsed?.type !== 'remote') return undefined;
  const chainId = chainIdOn(below, parsed.digest);
  return LAZY_NAME.exec(name)?.[1] === chainId ? chainId : undefined;
}

function rewriteLayers(database: Database.Database): void {
  const rows = database.prepare('SELECT id, layer FROM snapshot').all() as Pick<
    Row,
    'id' | 'layer'
  >[];
  const update = database.prepare('UPDATE snapshot SET layer = ? WHERE id = ?');
  for (const { id, layer } of rows) {
    const earlier = parseEarlierLayer(layer);
    if (earlier !== undefined) update.run(JSON.stringify(presentLayer(earlier)), id);
  }
}
