/**
 * Goal: obd-blockd has enough threads for blocking calls without starting itself a second time.
 * Method: the real program; /proc has the names of its threads and the environment of the last program that it started.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { BlockdProcess, blockdUnfit } from '../../test/support/blockd-process.js';

const POOL_THREADS = 16;

test('obd-blockd sizes its thread pool in the process that was started', {
  skip: blockdUnfit || process.env['UV_THREADPOOL_SIZE'] !== undefined,
}, async () => {
  await BlockdProcess.with(async ({ pid }) => {
    const environment = readFileSync(`/proc/${pid}/environ`, 'latin1');
    assert.ok(!environment.includes('UV_THREADPOOL_SIZE='), 'it started itself again');
    const threads = readdirSync(`/proc/${pid}/task`);
    const names = threads.map((id) =>
      readFileSync(`/proc/${pid}/task/${id}/comm`, 'latin1').trim(),
    );
    const workers = names.filter((name) => name === 'libuv-worker');
    assert.equal(workers.length, POOL_THREADS, names.join());
  });
});
