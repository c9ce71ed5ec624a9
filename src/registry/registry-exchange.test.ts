/**
 * Goal: odd but legal answers neither hold a request up nor end it.
 * Method: servers on loopback that answer by hand.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { readRange } from '../../test/support/read-range.js';
import { sha256Of } from '../oci/digest.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

const CONTENT = Buffer.from('0123456789');
const DIGEST = sha256Of(CONTENT);

async function clientOf(
  context: TestContext,
  answer: RequestListener,
): Promise<{ client: RegistryClient; host: string }> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = new RegistryClient({
    hosts: new RegistryHosts([]),
    credentials: { label: 'none', find: async () => undefined },
    limits: { ...DEFAULT_LIMITS, backoffMs: 1 },
  });
  context.after(async () => {
    await client.close();
    server.closeAllConnections();
    server.close();
  });
  return { client, host: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** A body that never ends, of one byte every 100 ms. */
function trickle(response: ServerResponse): void {
  const timer = setInterval(() => response.write(' '), 100);
  response.on('close', () => clearInterval(timer));
}

for (const [kind, status] of [
  ['redirect', 307],
  ['challenge', 401],
] as const) {
  test(`a ${kind} whose body trickles delays a read by about a second`, async (context) => {
    const { client, host } = await clientOf(context, (request, response) => {
      if (request.url?.startsWith('/token')) {
        response.end('{"token":"abc"}');
      } else if (request.url === '/storage' || request.headers.authorization !== undefined) {
        const range = `bytes 0-9/${CONTENT.length}`;
        response.writeHead(206, { 'content-range': range }).end(CONTENT);
      } else {
        const realm = `Bearer realm="http://${request.headers.host}/token"`;
        response.writeHead(
          status,
          status === 307 ? { location: '/storage' } : { 'www-authenticate': realm },
        );
        trickle(response);
      }
    });
    const target = new Uint8Array(CONTENT.length);
    const started = performance.now();
    const blob = await client.blobRanges(host, 'x/y', DIGEST, CONTENT.length);
    await readRange(blob, target, 0);
    assert.ok(CONTENT.equals(target));
    assert.ok(performance.now() - started < 4_000, `${performance.now() - started} ms`);
  });
}

const CONTENT_RANGES = [
  [206, 'Bytes 5-9/10'],
  [206, 'bytes  5 - 9 / 10'],
  [206, 'BYTES 3-9/*'],
  [200, 'bytes 5-9/10'],
] as const;

for (const [status, range] of CONTENT_RANGES) {
  test(`a download goes on after ${status} with Content-Range "${range}"`, async (context) => {
    let requests = 0;
    const { client, host } = await clientOf(context, (request, response) => {
      requests++;
      if (request.headers.range === undefined) {
        response.writeHead(200, { 'content-length': CONTENT.length });
        response.write(CONTENT.subarray(0, 5), () => setTimeout(() => response.destroy(), 50));
        return;
      }
      const first = Number(/[0-9]+/.exec(range)?.[0]);
      response.writeHead(status, { 'content-range': range }).end(CONTENT.subarray(first));
    });
    const pieces: Uint8Array[] = [];
    const descriptor = { mediaType: '', digest: DIGEST, size: CONTENT.length };
    for await (const piece of client.readBlob(host, 'x/y', descriptor)) pieces.push(piece);
    assert.equal(Buffer.concat(pieces).toString(), CONTENT.toString());
    assert.equal(requests, 2);
  });
}
