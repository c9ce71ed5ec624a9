/**
 * The snapshots' records, in one SQLite file: every snapshot with its layer and its parent.
 *
 * Guaranteed:
 *
 *   1. Every change is one transaction that has reached the disk when the method returns (WAL, synchronous=FULL):
 *      after a crash or a power cut it is there in whole or not at all.
 *   2. A parent exists, is committed, and has a smaller id than its child; while it has a child it stays.
 *   3. An id is never given out twice, not even after its snapshot is gone: it names devices and directories,
 *      and a new snapshot must not take over orphaned ones.
 *   4. One process at a time (locking_mode=EXCLUSIVE, a lock that dies with its holder): a second is told `Busy`.
 *
 *   5. A snapshot can be removed on a full disk, so that containerd can free it: see #onFullDisk().
 *
 * Errors match containerd's metadata store in each case, as its clients tell them apart.
 * An unreadable record (a newer layer type, a damaged field) fails calls about it with `Corrupt`. list() reports and
 * omits it, and so do searches, without a report: the other snapshots are served.
 *
 * Cost: calls are synchronous; reads are one indexed look-up (list: a scan), changes one fsync.
 */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import * as z from 'zod';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import {
  KINDS,
  type Kind,
  type Labels,
  type Layer,
  layerSchema,
  type Snapshot,
  type Usage,
} from './snapshot.js';
import { migrate } from './store-schema.js';

/** Room for the pages of a few removals in the log, which keeps it. */
const SPARE_BYTES = 256 << 10;

const SELECT = `SELECT s.*, coalesce(p.name, '') AS parent FROM snapshot s LEFT JOIN snapshot p ON p.id = s.parent_id`;

const recordSchema = z.object({
  id: z.int().positive(),
  name: z.string(),
  parent: z.string(),
  kind: z.enum(KINDS),
  labels: z.string().transform((text) => z.record(z.string(), z.string()).parse(JSON.parse(text))),
  created_ms: z.int(),
  updated_ms: z.int(),
  size_bytes: z.int(),
  inodes: z.int(),
  layer: z.string().transform((text) => layerSchema.parse(JSON.parse(text))),
  chain_id: z.string().nullable(),
  namespaces: z.string().transform((text) => z.array(z.string()).parse(JSON.parse(text))),
});

interface Row {
  readonly id: number;
  readonly name: string;
  readonly kind: Kind;
}

export interface NewSnapshot {
  /** From nextId(). */
  readonly id: number;
  readonly name: string;
  readonly parent: string;
  readonly kind: Kind;
  readonly labels: Labels;
  readonly layer: Layer;
  readonly chainId: string | undefined;
  readonly namespaces: readonly string[];
}

export class SnapshotStore {
  readonly #database: Database.Database;
  /** By their text, which is constant: at most one per call in this file. */
  readonly #statements = new Map<string, Database.Statement>();
  #lastId: number;

  private constructor(database: Database.Database) {
    this.#database = database;
    this.#lastId = this.#highestIdEver();
  }

  /** @throws {ObdError} `Busy`, `Corrupt` if it is no database, `Unsupported` if a later version wrote it, `Io`. */
  static open(path: string): SnapshotStore {
    let database: Database.Database | undefined;
    try {
      database = new Database(path, { timeout: 0 });
      database.pragma('locking_mode = EXCLUSIVE');
      database.pragma('journal_mode = WAL');
      database.pragma('synchronous = FULL');
      database.pragma('foreign_keys = ON');
      migrate(database, path);
      fillSpare(sparePath(path));
      return new SnapshotStore(database);
    } catch (error) {
      database?.close();
      throw error instanceof ObdError ? error : storeError(path, error);
    }
  }

  /** An id for a new snapshot; it is taken for good once a record with it is written. */
  nextId(): number {
    this.#lastId++;
    return this.#lastId;
  }

  /** Ids up to here may have been used. */
  reserveIdsUpTo(id: number): void {
    this.#lastId = Math.max(this.#lastId, id);
  }

  /** @throws {ObdError} `NotFound` for the parent, `InvalidArgument` if that is not committed, `AlreadyExists`. */
  insert(snapshot: NewSnapshot): void {
    const { id, name, parent, kind, labels, layer, chainId, namespaces } = snapshot;
    this.#transaction(() => {
      let parentId: number | null = null;
      if (parent !== '') {
        const row = this.#row(parent);
        if (row === undefined) throw notFound(parent, 'parent snapshot');
        if (row.kind !== 'committed') {
          throw refusal(
            ErrorCodes.InvalidArgument,
            parent,
            `it is ${row.kind}, and a parent must be committed`,
          );
        }
        parentId = row.id;
      }
      if (this.#row(name) !== undefined) throw alreadyExists(name);
      const now = Date.now();
      this.#statement(
        `INSERT INTO snapshot (id, name, parent_id, kind, labels, created_ms, updated_ms, layer,
             chain_id, namespaces)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      ).run(
        id,
        name,
        parentId,
        kind,
        textOfLabels(labels),
        now,
        now,
        JSON.stringify(layer),
        chainId ?? null,
        JSON.stringify(namespaces),
      );
    });
  }

  /** @throws {ObdError} `NotFound`, `Corrupt`. */
  get(name: string): Snapshot {
    const row = this.#statement(`${SELECT} WHERE s.name = ?`).get(name);
    if (row === undefined) throw notFound(name, 'snapshot');
    return snapshotOf(row);
  }

  has(name: string): boolean {
    return this.#row(name) !== undefined;
  }

  /** The snapshots that this one stands on, nearest first. @throws {ObdError} `NotFound`, `Corrupt`. */
  ancestors(name: string): Snapshot[] {
    const chain: Snapshot[] = [];
    let at = this.get(name).parent;
    while (at !== '') {
      const snapshot = this.get(at);
      chain.push(snapshot);
      at = snapshot.parent;
    }
    return chain;
  }

  /** The committed snapshots on this parent that carry this label, in the order of list(). */
  committedWithLabel(parent: string, key: string, value: string): Snapshot[] {
    const rows = this.#statement(
      `${SELECT} WHERE s.parent_id IS ? AND s.kind = 'committed' AND instr(s.labels, ?) > 0
         ORDER BY s.id`,
    ).all(parent === '' ? null : this.get(parent).id, JSON.stringify(value));
    return readable(rows).filter(({ labels }) => labels[key] === value);
  }

  /** The committed layers with this chain ID, or read from this blob on any parent. Cost: a scan. */
  layersOf(chainId: string, digest: string): Snapshot[] {
    const rows = this.#statement(
      `${SELECT} WHERE s.kind = 'committed' AND (s.chain_id = ?
           OR CASE WHEN json_valid(s.layer) THEN json_extract(s.layer, '$.type') = 'blocks'
             AND json_extract(s.layer, '$.file') IS NULL
             AND json_extract(s.layer, '$.lower.digest') = ? END)`,
    ).all(chainId, digest);
    return readable(rows);
  }

  /** Records that a namespace has this layer too. @throws {ObdError} `NotFound`, `Corrupt`. */
  addNamespace(name: string, namespace: string): void {
    this.#transaction(() => {
      const { id, namespaces } = this.get(name);
      if (namespaces.includes(namespace)) return;
      const all = JSON.stringify([...namespaces, namespace]);
      this.#statement('UPDATE snapshot SET namespaces = ? WHERE id = ?').run(all, id);
    });
  }

  /** Records another repository of the same registry, from which the remote layer is fetched from now on. */
  setRepository(name: string, repoBlobUrl: string): void {
    this.#statement(
      `UPDATE snapshot SET layer = json_set(layer, '$.lower.repoBlobUrl', ?)
         WHERE name = ? AND json_extract(layer, '$.type') = 'blocks'
           AND json_extract(layer, '$.file') IS NULL`,
    ).run(repoBlobUrl, name);
  }

  /** All snapshots, in creation order; calls `unreadable` for each record that is left out. */
  list(unreadable: (problem: ObdError) => void): Snapshot[] {
    const snapshots: Snapshot[] = [];
    for (const row of this.#statement(`${SELECT} ORDER BY s.id`).all()) {
      try {
        snapshots.push(snapshotOf(row));
      } catch (error) {
        if (!(error instanceof ObdError)) throw error;
        unreadable(error);
      }
    }
    return snapshots;
  }

  /** Whether there is a record with this id, readable or not. */
  hasId(id: number): boolean {
    return this.#statement('SELECT 1 FROM snapshot WHERE id = ?').get(id) !== undefined;
  }

  /** Whether an active snapshot or a view stands on this one, with nothing in between but layers of files. */
  isInUse(id: number): boolean {
    const found = this.#statement(
      `WITH RECURSIVE above (id, kind) AS (
           SELECT id, kind FROM snapshot WHERE parent_id = ?
           UNION ALL
           SELECT s.id, s.kind FROM snapshot s JOIN above ON s.parent_id = above.id
            WHERE EXISTS (SELECT 1 FROM snapshot f WHERE f.id = above.id AND
              CASE WHEN json_valid(f.layer) THEN json_extract(f.layer, '$.type') = 'files' END))
         SELECT 1 FROM above WHERE kind <> 'committed' LIMIT 1`,
    ).get(id);
    return found !== undefined;
  }

  /**
   * Makes an active snapshot a layer; it keeps its id and its parent. The given labels replace all others.
   *
   * @param chainId - The proved one; undefined for none.
   * @throws {ObdError} `AlreadyExists` for the name, `NotFound` for the key, `FailedPrecondition` if not active.
   */
  commit(
    key: string,
    name: string,
    labels: Labels,
    usage: Usage,
    layer: Layer,
    chainId: string | undefined,
  ): void {
    this.#transaction(() => {
      const row = this.#row(key);
      if (this.#row(name) !== undefined) throw alreadyExists(name);
      if (row === undefined) throw notFound(key, 'active snapshot');
      if (row.kind !== 'active') {
        throw refusal(ErrorCodes.FailedPrecondition, key, `it is ${row.kind}, and not active`);
      }
      const now = Date.now();
      this.#statement(
        `UPDATE snapshot SET name = ?, kind = 'committed', labels = ?, created_ms = ?, updated_ms = ?,
             size_bytes = ?, inodes = ?, layer = ?, chain_id = ? WHERE id = ?`,
      ).run(
        name,
        textOfLabels(labels),
        now,
        now,
        usage.sizeBytes,
        usage.inodes,
        JSON.stringify(layer),
        chainId ?? null,
        row.id,
      );
    });
  }

  /** @returns Its id. @throws {ObdError} `NotFound`, `FailedPrecondition` while something stands on it. */
  remove(name: string): number {
    return this.#onFullDisk(() => this.#remove(name));
  }

  #remove(name: string): number {
    return this.#transaction(() => {
      const row = this.#row(name);
      if (row === undefined) throw notFound(name, 'snapshot');
      const child = this.#statement('SELECT name FROM snapshot WHERE parent_id = ? LIMIT 1')
        .pluck()
        .get(row.id);
      if (child !== undefined) {
        const problem = `cannot remove it, as snapshot "${String(child)}" stands on it; remove that first`;
        throw refusal(ErrorCodes.FailedPrecondition, name, problem);
      }
      this.#statement('DELETE FROM snapshot WHERE id = ?').run(row.id);
      return row.id;
    });
  }

  /** @throws {ObdError} `NotFound`, `Corrupt`. */
  setLabels(name: string, change: (labels: Labels) => Labels): Snapshot {
    return this.#transaction(() => {
      const { id, labels } = this.get(name);
      this.#statement('UPDATE snapshot SET labels = ?, updated_ms = ? WHERE id = ?').run(
        textOfLabels(change(labels)),
        Date.now(),
        id,
      );
      return this.get(name);
    });
  }

  /** Idempotent. */
  close(): void {
    this.#database.close();
    // The log is gone, and its space free.
    fillSpare(sparePath(this.#database.name));
  }

  #row(name: string): Row | undefined {
    return this.#statement('SELECT id, name, kind FROM snapshot WHERE name = ?').get(name) as
      | Row
      | undefined;
  }

  #highestIdEver(): number {
    const found = this.#statement(`SELECT seq FROM sqlite_sequence WHERE name = 'snapshot'`)
      .pluck()
      .get();
    return typeof found === 'number' ? found : 0;
  }

  /** Prepares each statement once: preparing one per call would leave garbage after each. */
  #statement(sql: string): Database.Statement {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** Runs a change that frees space. On a full disk it gets the log's own space, and then that of the spare file. */
  #onFullDisk<T>(change: () => T): T {
    for (const makeRoom of [() => {}, () => truncateSync(sparePath(this.#database.name))]) {
      try {
        return change();
      } catch (error) {
        if (!hasCode(error, ErrorCodes.NoSpace)) throw error;
      }
      try {
        makeRoom();
        this.#database.pragma('wal_checkpoint(RESTART)');
      } catch {
        // The change fails again, and says why.
      }
    }
    return change();
  }

  #transaction<T>(body: () => T): T {
    try {
      return this.#database.transaction(body).immediate();
    } catch (error) {
      throw error instanceof ObdError ? error : storeError(this.#database.name, error);
    }
  }
}

/** Skips unreadable records; list() reports them. */
function readable(rows: readonly unknown[]): Snapshot[] {
  return rows.flatMap((row) => {
    try {
      return [snapshotOf(row)];
    } catch (error) {
      if (!(error instanceof ObdError)) throw error;
      return [];
    }
  });
}

function snapshotOf(row: unknown): Snapshot {
  try {
    const { created_ms, updated_ms, size_bytes, inodes, chain_id, ...same } =
      recordSchema.parse(row);
    return {
      ...same,
      chainId: chain_id ?? undefined,
      createdAtMs: created_ms,
      updatedAtMs: updated_ms,
      usage: { sizeBytes: size_bytes, inodes },
    };
  } catch (error) {
    const { id, name } = row as Row;
    const found = `The record of snapshot ${id}, "${name}", cannot be read: ${messageOf(error)}`;
    throw new ObdError(ErrorCodes.Corrupt, `${found}; remove the snapshot`, {}, error);
  }
}

/** An empty value is no label, as in containerd. */
function textOfLabels(labels: Labels): string {
  return JSON.stringify(
    Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== '')),
  );
}

function notFound(name: string, what: string): ObdError {
  return new ObdError(ErrorCodes.NotFound, `${what} "${name}" does not exist`);
}

function sparePath(path: string): string {
  return `${path}.spare`;
}

function fillSpare(path: string): void {
  try {
    if (statSync(path, { throwIfNoEntry: false })?.size === SPARE_BYTES) return;
    writeFileSync(path, Buffer.alloc(SPARE_BYTES), { mode: 0o600 });
  } catch {
    // A full disk: the next start tries again.
  }
}

export function alreadyExists(name: string): ObdError {
  return new ObdError(ErrorCodes.AlreadyExists, `snapshot "${name}" already exists`);
}

function refusal(code: ObdError['code'], name: string, problem: string): ObdError {
  return new ObdError(code, `snapshot "${name}": ${problem}`);
}

function storeError(path: string, error: unknown): ObdError {
  const code = error instanceof Database.SqliteError ? error.code : '';
  if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) {
    const found = `Cannot open "${path}": another process uses it; is obd-snapshotter running already?`;
    return new ObdError(ErrorCodes.Busy, found, { path }, error);
  }
  if (code.startsWith('SQLITE_NOTADB') || code.startsWith('SQLITE_CORRUPT')) {
    const found = `"${path}" is no usable database: ${messageOf(error)}; move the snapshotter's root aside and pull the images again`;
    return new ObdError(ErrorCodes.Corrupt, found, { path }, error);
  }
  const full = code.startsWith('SQLITE_FULL');
  const found = `Cannot use "${path}": ${messageOf(error)}`;
  return new ObdError(full ? ErrorCodes.NoSpace : ErrorCodes.Io, found, { path }, error);
}
