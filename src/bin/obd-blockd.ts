#!/usr/bin/env node
/** `obd-blockd`: sets what the process needs before anything uses it, then runs src/cli/obd-blockd/blockd-run.ts. */
import { Reloading } from '../cli/reloading.js';

/**
 * Threads for blocking calls, in place of libuv's four: while some wait for a disk or for the kernel's scan of a new device,
 * which reads from this process, others have to write fetched bytes and look up the registry's name.
 *
 * libuv reads the variable at the first call on its pool. Node 22 and later load the modules above without the pool.
 */
process.env['UV_THREADPOOL_SIZE'] ??= '16';

/**
 * glibc raises this size by itself otherwise, and then keeps freed buffers in its heaps, where they leave holes: 40 MiB
 * after copying an image.
 */
const RETURNED_BUFFER_BYTES = 128 * 1024;

// Before the other modules are loaded: SIGHUP may come at once.
const reloading = new Reloading();

const { returnFreedBuffers } = await import('../io/posix.js');
returnFreedBuffers(RETURNED_BUFFER_BYTES);

const { runBlockd } = await import('../cli/obd-blockd/blockd-run.js');
await runBlockd(reloading);
