/**
 * A registry of one crafted blob: a ZFile whose valid header claims 2^25 blocks, and with them an index of 128 MiB. It
 * computes the blob on request, and serves it under every digest, because lazy reads cannot check digests.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { BLOCKS_MAX, encodeFinalHeader, encodeTrailer } from '../../src/zfile/zfile-header.js';

const HEADER_BYTES = 512;
/** One byte of data and four of checksum: the shortest block. */
const STORED_BYTES = 5;
const INDEX_OFFSET = HEADER_BYTES + BLOCKS_MAX * STORED_BYTES;
const TRAILER_AT = INDEX_OFFSET + BLOCKS_MAX * 4;

export class HostileRegistry {
  readonly blobBytes = TRAILER_AT + HEADER_BYTES;
  /** Bytes of blobs sent. */
  sentBytes = 0;
  readonly #server: Server;
  readonly #header: Buffer;
  readonly #trailer: Buffer;

  private constructor() {
    const layout = {
      indexOffset: INDEX_OFFSET,
      blocks: BLOCKS_MAX,
      decompressedBytes: BLOCKS_MAX * 4096,
      indexCrc: 0,
      blockBytes: 4096,
      algorithm: 1 as const,
      checked: true,
    };
    this.#header = encodeFinalHeader(layout);
    this.#trailer = encodeTrailer(layout);
    this.#server = createServer((request, response) => {
      const [, first, last] = /^bytes=([0-9]+)-([0-9]+)$/.exec(request.headers.range ?? '') ?? [];
      if (first === undefined || last === undefined) return void response.writeHead(400).end();
      const end = Math.min(Number(last) + 1, this.blobBytes);
      const bytes = this.#range(Number(first), end);
      this.sentBytes += bytes.length;
      const range = `bytes ${first}-${end - 1}/${this.blobBytes}`;
      response.writeHead(206, { 'content-range': range, 'content-length': bytes.length });
      response.end(bytes);
    });
  }

  static async start(): Promise<HostileRegistry> {
    const registry = new HostileRegistry();
    registry.#server.listen(0, '127.0.0.1');
    await once(registry.#server, 'listening');
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #range(start: number, end: number): Buffer {
    const bytes = Buffer.alloc(end - start);
    for (let at = Math.max(start, INDEX_OFFSET); at < Math.min(end, TRAILER_AT); at++) {
      if ((at - INDEX_OFFSET) % 4 === 0) bytes[at - start] = STORED_BYTES;
    }
    for (const [block, at] of [
      [this.#header, 0],
      [this.#trailer, TRAILER_AT],
    ] as const) {
      const from = Math.max(start, at);
      const to = Math.min(end, at + HEADER_BYTES);
      if (from < to) block.copy(bytes, from - start, from - at, to - at);
    }
    return bytes;
  }
}
