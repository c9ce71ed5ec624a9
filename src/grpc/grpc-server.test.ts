/**
 * Goal: server and client keep the promises of their headers: the socket's modes and its replacement, unary and
 * streaming calls, errors both ways, cancellation both ways, deadlines.
 * Method: both in this process over a real socket, serving containerd's snapshots interface from small functions.
 */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import type {
  SnapshotsDefinition,
  SnapshotsHandlers,
} from './gen/containerd/services/snapshots/v1/Snapshots.js';
import { GrpcClient } from './grpc-client.js';
import { GrpcServer, type Implementation, service } from './grpc-server.js';
import { loadService } from './proto.js';

const methods = loadService<SnapshotsDefinition>(
  'containerd/services/snapshots/v1/snapshots.proto',
  'containerd.services.snapshots.v1.Snapshots',
);
const STREAM_LENGTH = 2_000;
const logged: object[] = [];
const log = { error: (fields: object) => void logged.push(fields) };
/** Signals of calls that wait until they are cancelled. */
const waiting: AbortSignal[] = [];

async function untilAborted(signal: AbortSignal): Promise<never> {
  waiting.push(signal);
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
  throw signal.reason;
}

const implementation: Implementation<SnapshotsHandlers> = {
  Prepare: async ({ key, parent, labels }, call) => {
    const options = [
      key,
      parent,
      JSON.stringify(labels),
      call.header('containerd-namespace') ?? '',
    ];
    return { mounts: [{ type: 'bind', source: '/s', options }] };
  },
  View: async (_request, { signal }) => await untilAborted(signal),
  Mounts: async () => {
    throw new TypeError('a bug');
  },
  Commit: async () => {
    throw new ObdError(ErrorCodes.Busy, 'Cannot commit: busy', { path: '/ü' });
  },
  Remove: async () => ({}),
  Stat: async ({ key }) => ({
    info: { name: key, kind: 'COMMITTED', createdAt: { seconds: 1_700_000_000, nanos: 5 } },
  }),
  Update: async ({ info, updateMask }) => ({
    info: { ...info, parent: updateMask?.paths?.[0] ?? '' },
  }),
  List: async function* ({ filters }, { signal }) {
    for (let i = 0; i < STREAM_LENGTH; i++) yield { info: [{ name: `${i}${'x'.repeat(1000)}` }] };
    if (filters[0] === 'fail') throw new ObdError(ErrorCodes.NotFound, 'Cannot list: gone');
    if (filters[0] === 'wait') await untilAborted(signal);
  },
  Usage: async ({ key }) => ({ size: Number(key), inodes: -1 }),
  Cleanup: async () => ({}),
};

let folder: string;
let socketPath: string;
let server: GrpcServer;
let client: GrpcClient;

const connect = (path: string, timeoutMs = 5_000) =>
  new GrpcClient(path, {
    peer: 'the test',
    timeoutMs,
    headers: { 'containerd-namespace': 'k8s.io' },
  });
const serve = (path: string) =>
  GrpcServer.listen(path, [service<SnapshotsHandlers>(methods, implementation)], log);

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'grpc-'));
  socketPath = join(folder, 'run', 'test.sock');
  server = await serve(socketPath);
  client = connect(socketPath);
});
after(async () => {
  client.close();
  await server.close(0);
  assert.deepEqual(readdirSync(join(folder, 'run')), []);
  rmSync(folder, { recursive: true });
});

describe('the socket', () => {
  test('is accessible only to its owner, alone in a directory that is too', () => {
    assert.equal(statSync(socketPath).mode & 0o777, 0o600);
    assert.equal(statSync(join(folder, 'run')).mode & 0o777, 0o700);
    assert.deepEqual(readdirSync(join(folder, 'run')), ['test.sock']);
  });

  test('is not replaced while another process answers on it', async () => {
    await assert.rejects(serve(socketPath), { code: ErrorCodes.Busy });
    assert.deepEqual((await client.call(methods.Stat, { key: 'a' })).info?.name, 'a');
  });

  test('replaces that of a dead server, and is removed by close()', async () => {
    const path = join(folder, 'stale.sock');
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(join(folder, 'bound'), resolve));
    // Renamed, so that close() does not remove it: a killed process leaves its socket in the same way.
    renameSync(join(folder, 'bound'), path);
    await new Promise((resolve) => dead.close(resolve));
    assert.ok(existsSync(path));
    const second = await serve(path);
    const other = connect(path);
    assert.equal((await other.call(methods.Stat, { key: 'b' })).info?.name, 'b');
    other.close();
    await second.close(1_000);
    assert.ok(!existsSync(path));
  });

  test('never replaces a regular file', async () => {
    const path = join(folder, 'file');
    writeFileSync(path, 'precious');
    await assert.rejects(serve(path), { code: ErrorCodes.AlreadyExists });
    assert.ok(statSync(path).isFile());
  });

  test('needs a path that fits and a directory that can be created', async () => {
    const long = join(folder, 'x'.repeat(100));
    await assert.rejects(serve(long), { code: ErrorCodes.InvalidArgument });
    assert.throws(() => connect(long), { code: ErrorCodes.InvalidArgument });
    await assert.rejects(serve(join(folder, 'file', 'x.sock')), { code: ErrorCodes.Io });
  });
});

describe('calls', () => {
  test('carry fields, labels and headers', async () => {
    const labels = { 'containerd.io/snapshot.ref': 'sha256:1', __proto: 'x' };
    const { mounts } = await client.call(methods.Prepare, { key: 'k', labels });
    assert.deepEqual(mounts, [
      {
        type: 'bind',
        source: '/s',
        target: '',
        options: ['k', '', JSON.stringify(labels), 'k8s.io'],
      },
    ]);
  });

  test('carry enums by name, times, masks, and null for absent fields', async () => {
    const { info } = await client.call(methods.Stat, { key: 'a' });
    assert.equal(info?.kind, 'COMMITTED');
    assert.deepEqual(info?.createdAt, { seconds: 1_700_000_000, nanos: 5 });
    assert.equal(info?.updatedAt, null);
    const updateMask = { paths: ['labels.a_b.c'] };
    const updated = await client.call(methods.Update, { info: { name: 'n' }, updateMask });
    assert.equal(updated.info?.parent, 'labels.a_b.c');
  });

  test('carry integers up to 2^53, and refuse larger ones', async () => {
    const size = 2 ** 53 - 1;
    assert.deepEqual(await client.call(methods.Usage, { key: `${size}` }), { size, inodes: -1 });
    await assert.rejects(client.call(methods.Usage, { key: `${2 ** 60}` }), /passes 2\^53/);
  });

  test('fail with the same error that the handler threw', async () => {
    await assert.rejects(client.call(methods.Commit, { key: 'k' }), {
      code: ErrorCodes.Busy,
      message: 'Cannot commit: busy',
      details: { path: '/ü' },
    });
  });

  test('log a bug, answer INTERNAL and keep the server running', async () => {
    await assert.rejects(client.call(methods.Mounts, { key: 'k' }), {
      code: ErrorCodes.Io,
      message: /Cannot call the test \(Snapshots\/Mounts\): Internal error: a bug; /,
    });
    assert.equal(logged.length, 1);
    await client.call(methods.Remove, { key: 'k' });
  });

  test("end at their deadline, and the handler's signal is aborted", async () => {
    const before = waiting.length;
    await assert.rejects(client.call(methods.View, { key: 'k' }, { timeoutMs: 100 }), {
      code: ErrorCodes.Unavailable,
    });
    await aborted(before);
  });

  test("end on abort with the caller's reason", async () => {
    const controller = new AbortController();
    const before = waiting.length;
    const call = client.call(methods.View, { key: 'k' }, { signal: controller.signal });
    const reason = new ObdError(ErrorCodes.FailedPrecondition, 'Interrupted');
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(call, reason);
    await aborted(before);
    await assert.rejects(
      client.call(methods.Stat, { key: 'k' }, { signal: controller.signal }),
      reason,
    );
  });

  test('name the server and the socket that cannot be reached', async () => {
    const lost = connect(join(folder, 'nobody.sock'));
    await assert.rejects(lost.call(methods.Stat, { key: 'k' }), {
      code: ErrorCodes.Unavailable,
      message: /^Cannot reach the test at ".*nobody\.sock": .*ENOENT.*; check that it runs/,
    });
    lost.close();
  });

  test('reconnect to a server that was down', async () => {
    const path = join(folder, 'restart.sock');
    const again = connect(path);
    for (let turn = 0; turn < 2; turn++) {
      const restarted = await serve(path);
      await answered(again);
      await restarted.close(1_000);
    }
    again.close();
  });
});

describe('streams', () => {
  test('carry all responses to a slow reader', async () => {
    let count = 0;
    for await (const { info } of client.stream(methods.List, {})) {
      assert.ok(info[0]?.name?.startsWith(`${count}x`));
      if (count++ % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal(count, STREAM_LENGTH);
  });

  test("fail with the handler's error after the earlier responses", async () => {
    let count = 0;
    await assert.rejects(
      async () => {
        for await (const _ of client.stream(methods.List, { filters: ['fail'] })) count++;
      },
      { code: ErrorCodes.NotFound, message: 'Cannot list: gone' },
    );
    assert.equal(count, STREAM_LENGTH);
  });

  test('can be abandoned early', async () => {
    for await (const _ of client.stream(methods.List, { filters: ['wait'] })) break;
    await client.call(methods.Stat, { key: 'k' });
  });

  test('end on abort', async () => {
    const controller = new AbortController();
    const reason = new ObdError(ErrorCodes.FailedPrecondition, 'Interrupted');
    const before = waiting.length;
    await assert.rejects(async () => {
      let count = 0;
      const options = { signal: controller.signal };
      for await (const _ of client.stream(methods.List, { filters: ['wait'] }, options)) {
        if (++count === STREAM_LENGTH) controller.abort(reason);
      }
    }, reason);
    await aborted(before);
  });
});

/** Waits until the signal of the handler that started after `index` others is aborted. */
async function aborted(index: number): Promise<void> {
  while (waiting[index]?.aborted !== true) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function answered(again: GrpcClient): Promise<void> {
  for (let tries = 0; tries < 50; tries++) {
    try {
      await again.call(methods.Stat, { key: 'k' });
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  assert.fail('the client did not reconnect');
}
