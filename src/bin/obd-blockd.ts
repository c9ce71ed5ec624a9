#!/usr/bin/env node
/**
 * `obd-blockd`: restarts itself with the environment variables that Node reads only at its start:
 *
 *   UV_THREADPOOL_SIZE       more threads for blocking calls than libuv's four: while some wait for a disk or for the
 *                            kernel's scan of a new device, which reads from this process, others have to write fetched
 *                            bytes and look up the registry's name
 *   MALLOC_MMAP_THRESHOLD_   free() returns large buffers to the kernel: glibc otherwise begins to keep them in its heaps,
 *                            where they leave holes (40 MiB after copying an image)
 */
import { Reloading } from '../cli/reloading.js';

const SETTINGS = { UV_THREADPOOL_SIZE: '16', MALLOC_MMAP_THRESHOLD_: '131072' };

// Loaded first, in this process and in the next: SIGHUP may come at once.
const reloading = new Reloading();

if (Object.keys(SETTINGS).some((name) => process.env[name] === undefined)) {
  const { becomeProgram } = await import('../io/posix.js');
  becomeProgram(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    ...SETTINGS,
    ...process.env,
  });
}

const { runBlockd } = await import('../cli/obd-blockd/blockd-run.js');
await runBlockd(reloading);
