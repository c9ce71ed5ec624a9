/**
 * A thread that has asked a file for more than the disk gives at once: it then ends as `workerData.end` says, by
 * itself with 'exit', when the bytes are there with 'wait', or not at all.
 */
import { openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { ResidentFile } from '../../src/io/resident-file.js';

const { path, end } = workerData as { path: string; end: string };
const STEP = 1 << 19;
const file = new ResidentFile(openSync(path, 'r'), path);
const loads = Array.from({ length: 8 }, (_, i) => file.load(i * STEP, STEP));
parentPort?.postMessage('loading');
if (end === 'exit') process.exit(3);
if (end === 'wait') await Promise.all(loads);
else setInterval(() => {}, 1000);
