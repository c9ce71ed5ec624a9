/**
 * Goal: no end of a connection ends this process.
 * Method: a server on loopback that sends all of a body and the end of its connection while nobody reads the body.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { HttpClient } from './http-client.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

/** As much as pauses the parser, and has left the socket then. */
const BODY = Buffer.alloc(64 << 10, 'body');

test('a body that is read late is whole though its connection has ended', async () => {
  for (const headers of [
    `Content-Length: ${BODY.length}\r\nConnection: close`,
    'Connection: close',
  ]) {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => {
        socket.write(`HTTP/1.1 200 OK\r\n${headers}\r\n\r\n`);
        socket.end(BODY);
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = new HttpClient(DEFAULT_LIMITS);
    try {
      const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/blob`);
      const response = await client.send({
        method: 'GET',
        url,
        headers: {},
        signal: undefined,
        doing: 'Cannot test',
      });
      await sleep(200);
      assert.ok(BODY.equals(await response.readAll(BODY.length)));
    } finally {
      await client.close();
      server.close();
    }
  }
});
