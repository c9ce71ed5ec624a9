#!/usr/bin/env node
/**
 * `obd-blockd`, with more threads for calls that block than libuv's four: while some wait for a disk or for the kernel to
 * look at a new device, which reads what this process serves, others have to write what was fetched and look up the
 * registry's name. libuv reads their number when it first needs one, which is before any module of ours runs;
 * so the process starts once more, as itself.
 */
import { becomeProgram } from '../io/posix.js';

const BLOCKING_CALLS_MAX = '16';

if (process.env['UV_THREADPOOL_SIZE'] === undefined) {
  becomeProgram(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    ...process.env,
    UV_THREADPOOL_SIZE: BLOCKING_CALLS_MAX,
  });
}

const { runBlockd } = await import('../cli/blockd-run.js');
await runBlockd();
