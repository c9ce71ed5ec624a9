/**
 * Puts a blob into a registry: POST opens an upload, one PUT with the digest sends all of it (OCI distribution spec
 * 1.1, "POST then PUT"). A retry begins a new upload, because registries differ most in how they resume one. The upload
 * session of a failed or interrupted attempt is deleted, if the registry answers.
 *
 * The content is checked against the descriptor while it is sent, and the registry checks it again. An upload that a
 * registry opens over TLS is never sent over plain HTTP, even if its Location says so.
 */
import { open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { Descriptor } from '../oci/manifest.js';
import type { Access } from './access.js';
import { piecesOfFile } from './file-pieces.js';
import type { RegistryExchange } from './registry-exchange.js';
import type { RegistryLimits } from './registry-limits.js';
import { retrying } from './retry.js';
import { verifiedBlob } from './verified-blob.js';

/** An upload that a registry has opened. The URL may hold a secret. */
export interface UploadSession {
  readonly host: string;
  readonly repository: string;
  readonly url: string;
}

/** Called when a session is opened; the function it returns is called when the session is over. */
export type NoteUpload = (session: UploadSession) => () => void;

/** Limit for deleting a session; the registry expires it anyway, so callers should not wait longer. */
const CANCEL_MS = 3_000;

export interface BlobContent {
  readonly descriptor: Descriptor;
  /** The path of a file, or the bytes. */
  readonly content: string | Uint8Array;
  /** Called with the number of bytes just sent; a retry reports its bytes again. */
  readonly onBytes: ((bytes: number) => void) | undefined;
  readonly noteUpload?: NoteUpload | undefined;
}

/**
 * @throws {ObdError} `Corrupt` if the content is not what the descriptor states, `Io` if it cannot be
 *   read, `Unavailable`, `Unauthorized`, `Registry`; the signal's reason.
 */
export async function uploadBlob(
  exchange: RegistryExchange,
  limits: RegistryLimits,
  access: Access,
  blob: BlobContent,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { attemptsMax, backoffMs } = limits;
  const doing = `Cannot upload ${blob.descriptor.digest} to ${access.host}/${access.repository}`;
  // Progress bounds each attempt: the time for a gigabyte is unknown here.
  const policy = { attemptsMax, backoffMs, deadlineMs: undefined };
  await retrying(policy, doing, signal, async (attemptSignal) => {
    const session = await openUpload(exchange, access, doing, attemptSignal);
    const { host, repository } = access;
    const over = blob.noteUpload?.({ host, repository, url: session.href });
    const location = new URL(session);
    location.searchParams.set('digest', blob.descriptor.digest);
    const watch = new StallWatch(limits.uploadIdleMs, doing, access.host, attemptSignal);
    try {
      const response = await exchange.send({
        access,
        method: 'PUT',
        url: location,
        headers: {
          'content-type': 'application/octet-stream',
          'content-length': String(blob.descriptor.size),
        },
        body: () => bodyOf(blob, watch),
        signal: watch.signal,
        headersMs: limits.uploadHeadersMs,
        doing,
      });
      if (response.status !== 201) throw await exchange.errorOf(response, access);
      await response.discard();
    } catch (error) {
      watch.stop();
      await cancelUpload(exchange, access, session);
      throw error;
    } finally {
      watch.stop();
      over?.();
    }
  });
}

/** Deletes an upload session. Never throws: the registry expires a session that it does not delete. */
export async function cancelUpload(
  exchange: RegistryExchange,
  access: Access,
  url: URL,
): Promise<void> {
  const doing = `Cannot delete an upload at ${access.host}`;
  const signal = AbortSignal.timeout(CANCEL_MS);
  try {
    const response = await exchange.send({
      access,
      method: 'DELETE',
      url,
      headers: {},
      signal,
      doing,
    });
    await response.discard();
  } catch {
    // The upload's own error explains more.
  }
}

async function openUpload(
  exchange: RegistryExchange,
  access: Access,
  doing: string,
  signal: AbortSignal,
): Promise<URL> {
  const url = exchange.urlOf(access, 'blobs/uploads/');
  const headers = { 'content-length': '0' };
  const request = { access, method: 'POST', url, headers, signal, doing } as const;
  const response = await exchange.send(request);
  if (response.status !== 202) throw await exchange.errorOf(response, access);
  const location = response.header('location');
  await response.discard();
  if (location !== undefined) return exchange.locationOf(response, location);
  const problem = `${url.host} opened an upload and did not say where`;
  throw new ObdError(ErrorCodes.Registry, `${doing}: ${problem}`);
}

function bodyOf(blob: BlobContent, watch: StallWatch): Readable {
  // One buffered piece (256 KiB) is enough; more would only cost memory.
  return Readable.from(checkedPieces(blob, watch), { highWaterMark: 1 });
}

async function* checkedPieces(
  { descriptor, content, onBytes }: BlobContent,
  watch: StallWatch,
): AsyncGenerator<Uint8Array, void, undefined> {
  const label = typeof content === 'string' ? `"${content}"` : descriptor.digest;
  for await (const piece of verifiedBlob(piecesOf(content), descriptor, label)) {
    watch.progress();
    yield piece;
    onBytes?.(piece.length);
  }
  // From here on the limit for the answer applies, and still the caller's signal.
  watch.allSent();
}

async function* piecesOf(
  content: string | Uint8Array,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (typeof content !== 'string') {
    yield content;
    return;
  }
  const file = await open(content, 'r').catch((error: unknown) => {
    const message = `Cannot read "${content}": ${messageOf(error)}`;
    throw new ObdError(ErrorCodes.Io, message, { path: content }, error);
  });
  try {
    yield* piecesOfFile(file, content, undefined);
  } finally {
    await file.close();
  }
}

/** A signal that aborts with the caller's signal, or when no byte moves for too long. */
class StallWatch {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal;
  readonly #forward = () => this.#controller.abort(this.#outer.reason);
  readonly #timer: NodeJS.Timeout;

  constructor(idleMs: number, doing: string, host: string, outer: AbortSignal) {
    this.#outer = outer;
    outer.addEventListener('abort', this.#forward, { once: true });
    if (outer.aborted) this.#forward();
    const message = `${doing}: ${host} took nothing for ${idleMs / 1000} s`;
    const stalled = () => this.#controller.abort(new ObdError(ErrorCodes.Unavailable, message));
    this.#timer = setTimeout(stalled, idleMs);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  progress(): void {
    this.#timer.refresh();
  }

  allSent(): void {
    clearTimeout(this.#timer);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener('abort', this.#forward);
  }
}
