/**
 * The far end as a client sees it, a process of its own in the far namespace: two HTTP servers in front of a
 * docker-registry, as large registries have them.
 *
 *     registry   wants a bearer token, and gives one to every client at `/token`; passes manifests and HEADs on to
 *                docker-registry; answers each GET of a blob by a redirect to the storage
 *     storage    sends ranges of blobs, from docker-registry's files; `/bytes/N` sends N bytes
 *
 * Each request is a line of JSON on standard output (RequestRecord), written when its response has ended.
 */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  request as passOn,
  type ServerResponse,
} from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { FAR_ADDRESS, REGISTRY_PORT, STORAGE_PORT } from './link.js';

/** Sent by `/bytes/N` in pieces. */
const PIECE = Buffer.alloc(1 << 20, 'obd');
const READ_BYTES = 256 << 10;

export interface RequestRecord {
  /** Milliseconds of CLOCK_MONOTONIC: arrival of the request, and end of the response. */
  readonly at: number;
  readonly end: number;
  readonly server: 'registry' | 'token' | 'storage';
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly status: number;
  /** Of the body, as far as the client took it. */
  readonly bytes: number;
  readonly agent: string | undefined;
}

const [originPort, blobsFolder] = process.argv.slice(2);
const now = (): number => Number(process.hrtime.bigint()) / 1e6;

type Handler = (request: IncomingMessage, response: ServerResponse) => unknown;

function serve(server: RequestRecord['server'], port: number, handler: Handler): Promise<void> {
  const http = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const at = now();
    const { socket } = request;
    const before = socket.bytesWritten;
    response.once('close', () => {
      const length =
        request.method === 'HEAD' ? 0 : Number(response.getHeader('content-length') ?? 0);
      const record: RequestRecord = {
        at,
        end: now(),
        server: request.url?.startsWith('/token') ? 'token' : server,
        method: request.method ?? '',
        path: request.url ?? '',
        range: request.headers.range,
        status: response.statusCode,
        bytes: response.writableFinished ? length : Math.min(length, socket.bytesWritten - before),
        agent: request.headers['user-agent'],
      };
      process.stdout.write(`${JSON.stringify(record)}\n`);
    });
    Promise.resolve(handler(request, response)).catch(() => response.destroy());
  });
  return new Promise((resolve) => http.listen(port, '0.0.0.0', resolve));
}

function send(response: ServerResponse, status: number, body: object, headers = {}): void {
  const text = JSON.stringify(body);
  const all = { 'content-type': 'application/json', 'content-length': `${text.length}` };
  begin(response, status, { ...all, ...headers });
  response.end(text);
}

/** Unlike writeHead() alone, keeps the headers where the log finds them. */
function begin(response: ServerResponse, status: number, headers: OutgoingHttpHeaders): void {
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) response.setHeader(name, value);
  }
  response.writeHead(status);
}

async function registry(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url ?? '';
  if (path.startsWith('/token')) {
    const token = { token: 'anonymous', access_token: 'anonymous', expires_in: 300 };
    return send(response, 200, token);
  }
  if (!request.headers.authorization?.startsWith('Bearer ')) {
    const name = /^\/v2\/(.+)\/(?:manifests|blobs|referrers|tags)\//.exec(path)?.[1];
    const scope = name === undefined ? '' : `,scope="repository:${name}:pull"`;
    const challenge = `Bearer realm="http://${FAR_ADDRESS}:${REGISTRY_PORT}/token",service="far"${scope}`;
    const errors = [{ code: 'UNAUTHORIZED', message: 'authentication required' }];
    return send(response, 401, { errors }, { 'www-authenticate': challenge });
  }
  const digest = /\/blobs\/(sha256:[0-9a-f]{64})$/.exec(path)?.[1];
  if (digest !== undefined && request.method === 'GET' && (await blobSize(digest)) !== undefined) {
    const signature = Math.random().toString(36).slice(2);
    const location = `http://${FAR_ADDRESS}:${STORAGE_PORT}/${digest}?signature=${signature}`;
    begin(response, 307, { location, 'content-length': '0' });
    response.end();
    return;
  }
  const { authorization, ...headers } = request.headers;
  const options = { host: '127.0.0.1', port: originPort, path, method: request.method, headers };
  const origin = passOn(options, (answer) => {
    begin(response, answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  origin.once('error', () => response.destroy());
  request.pipe(origin);
}

function fileOf(digest: string): string {
  const hex = digest.slice('sha256:'.length);
  return join(blobsFolder!, hex.slice(0, 2), hex, 'data');
}

async function blobSize(digest: string): Promise<number | undefined> {
  return await stat(fileOf(digest)).then(
    ({ size }) => size,
    () => undefined,
  );
}

async function storage(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = request.url ?? '';
  const wanted = /^\/bytes\/([0-9]+)$/.exec(url)?.[1];
  if (wanted !== undefined) {
    begin(response, 200, { 'content-length': wanted });
    return await pipeline(pieces(Number(wanted)), response);
  }
  const digest = /^\/(sha256:[0-9a-f]{64})(\?|$)/.exec(url)?.[1];
  const size = digest === undefined ? undefined : await blobSize(digest);
  if (digest === undefined || size === undefined) return send(response, 404, { errors: [] });
  const headers = { 'content-type': 'application/octet-stream', 'accept-ranges': 'bytes' };
  const range = rangeOf(request.headers.range, size);
  if (range === 'unsatisfiable') {
    return send(response, 416, { errors: [] }, { 'content-range': `bytes */${size}` });
  }
  const [start, end] = range ?? [0, size - 1];
  const length = `${end - start + 1}`;
  if (range === undefined) begin(response, 200, { ...headers, 'content-length': length });
  else {
    const contentRange = `bytes ${start}-${end}/${size}`;
    begin(response, 206, { ...headers, 'content-length': length, 'content-range': contentRange });
  }
  if (request.method === 'HEAD' || size === 0) response.end();
  else {
    const stream = createReadStream(fileOf(digest), { start, end, highWaterMark: READ_BYTES });
    await pipeline(stream, response);
  }
}

function* pieces(bytes: number): Generator<Buffer> {
  for (let left = bytes; left > 0; left -= PIECE.length) {
    yield PIECE.subarray(0, Math.min(left, PIECE.length));
  }
}

/** The one range of a header, clipped to the blob; undefined for the whole blob. */
function rangeOf(
  header: string | undefined,
  size: number,
): readonly [number, number] | 'unsatisfiable' | undefined {
  const [, first, last] = /^bytes=([0-9]*)-([0-9]*)$/.exec(header ?? '') ?? [];
  if (first === undefined || last === undefined || (first === '' && last === '')) return undefined;
  if (first === '') return [Math.max(0, size - Number(last)), size - 1];
  if (Number(first) >= size) return 'unsatisfiable';
  return [Number(first), last === '' ? size - 1 : Math.min(Number(last), size - 1)];
}

await serve('registry', REGISTRY_PORT, registry);
await serve('storage', STORAGE_PORT, storage);
process.stdout.write('ready\n');
