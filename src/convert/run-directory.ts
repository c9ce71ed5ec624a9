/**
 * The directory of one run of obdconv, in `--work-dir`: its work directories, and notes of its open uploads.
 *
 *   obdconv-XXXXXX/owner       the process (src/io/process-identity.ts), written first
 *   obdconv-XXXXXX/upload-N    an upload session at a registry, as JSON, for as long as it is open
 *
 * The run removes it at its end. The next run in the same `--work-dir` removes orphaned directories of killed runs: only
 * directories of this user whose process has ended. If that is unknown (another machine on a shared disk, an older
 * obdconv), the directory must not have changed for a day.
 */
import {
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { type OwnerState, ownerState, ownIdentity } from '../io/process-identity.js';
import type { UploadSession } from '../registry/blob-upload.js';
import { guarded } from './work-directory.js';

const PREFIX = 'obdconv-';
const OWNER = 'owner';
const UPLOAD = 'upload-';
/** No conversion leaves its files alone for so long. */
const ABANDONED_MS = 24 * 3600 * 1000;
/** One run has at most two open at a time. */
const SESSIONS_MAX = 64;
const SESSION_BYTES_MAX = 16 << 10;

const uploadSession = z.strictObject({ host: z.string(), repository: z.string(), url: z.string() });

export class RunDirectory {
  readonly path: string;
  #uploads = 0;

  /** @throws {ObdError} `Io`, `NoSpace` if nothing can be made in `parent`. */
  constructor(parent: string) {
    this.path = guarded(join(parent, 'x'), () => mkdtempSync(join(parent, PREFIX)));
    const owner = join(this.path, OWNER);
    try {
      guarded(owner, () => writeFileSync(owner, `${ownIdentity()}\n`));
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  /** Notes an upload session, unless the disk is full. @returns Removes the note, when the session is over. */
  readonly noteUpload = (session: UploadSession): (() => void) => {
    const path = join(this.path, `${UPLOAD}${this.#uploads++}`);
    try {
      writeFileSync(path, JSON.stringify(session));
    } catch {
      // Without a note, only the registry expires the session of a killed run.
    }
    return () => rmSync(path, { force: true });
  };

  /** Idempotent, and never throws: the next run removes the rest. */
  remove(): void {
    removeTree(this.path);
  }
}

/**
 * Removes the orphaned directories of killed runs in `parent`. Never throws: a failure must not stop this run.
 *
 * @param cancel - Ends an upload session that such a run left open at a registry. The directory is removed afterwards, so
 *   that a run killed in between leaves the note to the next one.
 */
export async function removeOrphans(
  parent: string,
  cancel: (session: UploadSession) => Promise<void>,
): Promise<void> {
  let sessionsLeft = SESSIONS_MAX;
  for (const name of namesIn(parent)) {
    const path = join(parent, name);
    if (!name.startsWith(PREFIX) || !isOrphaned(path)) continue;
    const sessions = sessionsIn(path).slice(0, sessionsLeft);
    sessionsLeft -= sessions.length;
    await Promise.allSettled(sessions.map(cancel));
    removeTree(path);
  }
}

function isOrphaned(path: string): boolean {
  const found = statOf(path);
  if (found?.isDirectory() !== true || found.uid !== process.geteuid?.()) return false;
  const state = stateOf(readSmall(join(path, OWNER)) ?? '');
  if (state === 'running') return false;
  return state === 'ended' || Date.now() - lastChangeMs(path, found) > ABANDONED_MS;
}

/** `unknown` also if /proc cannot be read. */
function stateOf(identity: string): OwnerState {
  try {
    return ownerState(identity);
  } catch {
    return 'unknown';
  }
}

function lastChangeMs(path: string, { mtimeMs }: Stats): number {
  const times = namesIn(path, true).map((name) => statOf(join(path, name))?.mtimeMs ?? 0);
  return Math.max(mtimeMs, ...times);
}

function sessionsIn(path: string): UploadSession[] {
  return namesIn(path)
    .filter((name) => name.startsWith(UPLOAD))
    .flatMap((name) => {
      try {
        return [uploadSession.parse(JSON.parse(readSmall(join(path, name)) ?? ''))];
      } catch {
        // The run was killed while it wrote the note: the registry will expire the session.
        return [];
      }
    });
}

function namesIn(path: string, recursive = false): string[] {
  try {
    return readdirSync(path, { recursive, encoding: 'utf8' });
  } catch {
    return [];
  }
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch {
    return undefined;
  }
}

function readSmall(path: string): string | undefined {
  const found = statOf(path);
  if (found?.isFile() !== true || found.size > SESSION_BYTES_MAX) return undefined;
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Another run removed it since, or its owner may not read it.
    return undefined;
  }
}

function removeTree(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch {
    // The next run tries again.
  }
}
