/**
 * The threads that devices are spread over: at most one per core, each started when there is a device for it and those
 * before it have some already, because each takes megabytes. The first is started at once: the devices of an earlier
 * run are waited for, and so is the first container's.
 */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { messageOf } from '../errors.js';
import { startThread } from '../io/start-thread.js';
import { Heartbeat } from './heartbeat.js';
import { type Handlers, ThreadCalls } from './thread-calls.js';
import type { MainCalls, WorkerCalls, WorkerSettings } from './worker-messages.js';

const THREADS_MAX = 8;
/** Decoded blocks that several reads share a part of, of all threads; the page cache keeps the rest. */
const DECODED_BYTES = 64 << 20;
/**
 * Of each thread, for what attaching and detaching leave to the collector; reads of local bytes leave next to none. V8
 * itself would have it grow to 48 MiB in each of them before it collects often.
 */
const YOUNG_MIB = 6;

export interface PooledWorker {
  readonly calls: ThreadCalls<WorkerCalls, MainCalls>;
  devices: number;
}

interface StartedWorker extends PooledWorker {
  readonly thread: Worker;
}

export interface PoolOptions {
  readonly settings: Omit<WorkerSettings, 'decodedBytes'>;
  /** What a new worker may call; each has its own. */
  readonly handlers: () => Handlers<MainCalls>;
  /** A worker has ended by itself, or is stuck, and its devices are served by nobody. */
  readonly onDeath: (error: Error) => void;
}

export class WorkerPool {
  readonly #options: PoolOptions;
  readonly #threadsMax = Math.min(THREADS_MAX, availableParallelism());
  readonly #workers: StartedWorker[] = [];
  #closing = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#start();
  }

  /** The worker for one more device, which it is until giveBack(). */
  take(): PooledWorker {
    let least: PooledWorker | undefined;
    for (const worker of this.#workers) {
      if (least === undefined || worker.devices < least.devices) least = worker;
    }
    const isFull = this.#workers.length === this.#threadsMax;
    const worker = least !== undefined && (least.devices === 0 || isFull) ? least : this.#start();
    worker.devices++;
    return worker;
  }

  giveBack(worker: PooledWorker): void {
    worker.devices--;
  }

  /** Ends the threads, with whatever they do. Idempotent. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#workers.map(({ thread }) => thread.terminate()));
  }

  #start(): StartedWorker {
    const { settings, handlers, onDeath } = this.#options;
    const decodedBytes = Math.floor(DECODED_BYTES / this.#threadsMax);
    const workerData: WorkerSettings = { ...settings, decodedBytes };
    const thread = startThread(import.meta.url, './worker-entry', {
      workerData,
      name: 'devices',
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    const calls = new ThreadCalls<WorkerCalls, MainCalls>(thread, handlers());
    const worker = { thread, devices: 0, calls };
    const heartbeat = new Heartbeat(() => calls.call('beat', undefined), onDeath);
    let cause: unknown;
    thread.on('error', (error) => {
      cause = error;
    });
    thread.on('exit', (status) => {
      heartbeat.stop();
      const why = `the thread ended by itself, with status ${status}`;
      calls.end(cause === undefined ? why : `the thread failed: ${messageOf(cause)}`);
      if (!this.#closing) onDeath(cause instanceof Error ? cause : new Error(why));
    });
    this.#workers.push(worker);
    return worker;
  }
}
