/** The start of a thread that serves devices; see worker-devices.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { makeTransports } from '../blockdev/transports.js';
import { WorkerDevices } from './worker-devices.js';
import type { WorkerSettings } from './worker-messages.js';

// Only a Worker of worker-pool.ts starts with this file.
new WorkerDevices(parentPort!, workerData as WorkerSettings, makeTransports);
