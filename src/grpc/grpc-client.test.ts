/**
 * Goal: a conversation has one response for each request; it ends with an error that names the reason, on either side.
 * Method: a bare grpc-js server that answers containerd's Content/Write as each test needs.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Server, ServerCredentials, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { ContentDefinition } from './gen/containerd/services/content/v1/Content.js';
import type { WriteContentRequest__Output } from './gen/containerd/services/content/v1/WriteContentRequest.js';
import type { WriteContentResponse } from './gen/containerd/services/content/v1/WriteContentResponse.js';
import { GrpcClient } from './grpc-client.js';
import { loadService } from './proto.js';

const methods = loadService<ContentDefinition>(
  'containerd/services/content/v1/content.proto',
  'containerd.services.content.v1.Content',
);

type Call = ServerDuplexStream<WriteContentRequest__Output, WriteContentResponse>;

describe('a conversation', () => {
  let folder: string;
  let server: Server;
  let client: GrpcClient;
  /** Headers of the last call. */
  let headers: string[] = [];
  let cancelled = 0;

  /** Answers with the length of the data; `ref` can select other behaviour. */
  function write(call: Call): void {
    headers = ['containerd-namespace', 'containerd-lease'].map(
      (name) => `${call.metadata.get(name)[0]}`,
    );
    call.on('cancelled', () => cancelled++);
    call.on('data', ({ ref, data, offset }: WriteContentRequest__Output) => {
      if (ref === 'silent') return;
      if (ref === 'end') call.end();
      else if (ref === 'fail') {
        call.emit('error', { code: status.ALREADY_EXISTS, details: 'there' });
      } else call.write({ offset: offset + data.length });
    });
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'grpc-'));
    const path = join(folder, 's');
    server = new Server();
    server.addService({ Write: methods.Write }, { Write: write });
    await new Promise<void>((resolve, reject) => {
      const credentials = ServerCredentials.createInsecure();
      server.bindAsync(`unix:${path}`, credentials, (error) => (error ? reject(error) : resolve()));
    });
    const options = { peer: 'the test', timeoutMs: 5_000 };
    client = new GrpcClient(path, { ...options, headers: { 'containerd-namespace': 'n' } });
  });
  after(() => {
    client.close();
    server.forceShutdown();
    rmSync(folder, { recursive: true });
  });

  test('send() resolves with one response per request, in order', async () => {
    const talk = client.with({ headers: { 'containerd-lease': 'l' } }).converse(methods.Write);
    let offset = 0;
    for (let i = 0; i < 50; i++) {
      ({ offset } = await talk.ask({ ref: 'r', offset, data: Buffer.alloc(1000) }));
    }
    talk.close();
    talk.close();
    assert.equal(offset, 50_000);
    assert.deepEqual(headers, ['n', 'l']);
  });

  test("send() fails with the server's error", async () => {
    const talk = client.converse(methods.Write);
    await talk.ask({ ref: 'r' });
    await assert.rejects(talk.ask({ ref: 'fail' }), {
      code: ErrorCodes.AlreadyExists,
      message: 'Cannot call the test (Content/Write): there',
    });
    talk.close();
  });

  test('send() fails if the server ends the stream', async () => {
    const talk = client.converse(methods.Write);
    await assert.rejects(talk.ask({ ref: 'end' }), {
      code: ErrorCodes.Io,
      message: /ended it early/,
    });
    talk.close();
  });

  test('send() fails if no answer arrives within the time limit', async () => {
    const talk = client.converse(methods.Write, { timeoutMs: 100 });
    await assert.rejects(talk.ask({ ref: 'silent' }), {
      code: ErrorCodes.Unavailable,
      message: /no answer in 100 ms/,
    });
    talk.close();
  });

  test("abort ends it with the caller's reason and cancels the server's handler", async () => {
    const controller = new AbortController();
    const reason = new ObdError(ErrorCodes.FailedPrecondition, 'Interrupted');
    const talk = client.with({ signal: controller.signal }).converse(methods.Write);
    await talk.ask({ ref: 'r' });
    const before = cancelled;
    setTimeout(() => controller.abort(reason), 20);
    await assert.rejects(talk.ask({ ref: 'silent' }), reason);
    talk.close();
    while (cancelled === before) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.throws(() => client.converse(methods.Write, { signal: controller.signal }), reason);
  });
});
