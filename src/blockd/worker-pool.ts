/**
 * The threads that devices are spread over: at most one per core. Each takes 15 MiB, so a thread is started only when
 * those before it have some devices. The first is started at once: the devices of an earlier run, and the first
 * container, wait for it.
 *
 * A thread loads its program from the folder of this one, which no build changes (tools/bundle.js). If that folder was
 * removed or replaced by other means, no thread of another version is started: the existing ones serve all devices.
 */
import { availableParallelism } from 'node:os';
import type { WorkerOptions } from 'node:worker_threads';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { ThreadProgram } from '../io/start-thread.js';
import { Heartbeat } from './heartbeat.js';
import { type Handlers, type Port, ThreadCalls } from './thread-calls.js';
import type { MainCalls, WorkerCalls, WorkerSettings } from './worker-messages.js';

/** The program of the daemon's threads. */
export const DEVICE_PROGRAM = new ThreadProgram(import.meta.url, './worker-entry');
const THREADS_MAX = 8;
const BEAT_MS = 5_000;
/** Decoded blocks that several reads share a part of, over all threads; the page cache keeps the rest. */
const DECODED_BYTES = 64 << 20;
/**
 * V8's young generation in each thread, for the garbage of attaching and detaching; reads of local bytes leave next to
 * none. V8's default would grow to 48 MiB in each thread before it collects often.
 */
const YOUNG_MIB = 6;

export interface PooledWorker {
  readonly calls: ThreadCalls<WorkerCalls, MainCalls>;
  devices: number;
}

/** A Worker, as far as the pool uses it. */
export interface DeviceThread extends Port {
  on: Port['on'] & {
    (event: 'error', listener: (error: unknown) => void): unknown;
    (event: 'exit', listener: (status: number) => void): unknown;
  };
  terminate(): Promise<unknown>;
}

/** Starts threads: a ThreadProgram. */
export interface DeviceProgram {
  isUnchanged(): boolean;
  start(options: WorkerOptions): DeviceThread;
}

interface StartedWorker extends PooledWorker {
  readonly thread: DeviceThread;
  /** Whether it has loaded its program. Never rejects. */
  readonly loaded: Promise<boolean>;
}

export interface PoolOptions {
  readonly program: DeviceProgram;
  readonly settings: Omit<WorkerSettings, 'decodedBytes'>;
  /** The calls that a new worker may make; each has its own. */
  readonly handlers: () => Handlers<MainCalls>;
  /** A worker has ended by itself, or is stuck, and its devices have no server. */
  readonly onDeath: (error: Error) => void;
  /** A further thread could not load its program; the pool keeps the existing threads, and starts no more. */
  readonly onUnloadable: (error: Error) => void;
}

export class WorkerPool {
  readonly #options: PoolOptions;
  #threadsMax = Math.min(THREADS_MAX, availableParallelism());
  readonly #workers: StartedWorker[] = [];
  #closing = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#start();
  }

  /** Resolves when the first thread has loaded its program, or failed to: see onDeath. */
  async loaded(): Promise<void> {
    await this.#workers[0]?.loaded;
  }

  /** The worker for one more device, counted until release(). */
  async acquire(): Promise<PooledWorker> {
    const worker = this.#pick();
    worker.devices++;
    if ((await worker.loaded) || this.#workers.includes(worker)) return worker;
    return await this.acquire();
  }

  #pick(): StartedWorker {
    let least: StartedWorker | undefined;
    for (const worker of this.#workers) {
      if (least === undefined || worker.devices < least.devices) least = worker;
    }
    if (least === undefined) return this.#start();
    return least.devices === 0 || !this.#canGrow() ? least : this.#start();
  }

  #canGrow(): boolean {
    if (this.#workers.length >= this.#threadsMax) return false;
    if (this.#options.program.isUnchanged()) return true;
    this.#threadsMax = this.#workers.length;
    const problem = 'Cannot start a thread: the files of the program were removed or replaced';
    this.#options.onUnloadable(new ObdError(ErrorCodes.FailedPrecondition, problem));
    return false;
  }

  release(worker: PooledWorker): void {
    worker.devices--;
  }

  /** Ends the threads, also in the middle of work. Idempotent. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#workers.map(({ thread }) => thread.terminate()));
  }

  #start(): StartedWorker {
    const { program, settings, handlers, onDeath, onUnloadable } = this.#options;
    const decodedBytes = Math.floor(DECODED_BYTES / this.#threadsMax);
    const workerData: WorkerSettings = { ...settings, decodedBytes };
    const thread = program.start({
      workerData,
      name: 'devices',
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    const calls = new ThreadCalls<WorkerCalls, MainCalls>(thread, handlers());
    let isLoaded = false;
    const loaded = calls.call('beat', undefined).then(
      () => {
        isLoaded = true;
        return true;
      },
      () => false,
    );
    const worker = { thread, devices: 0, calls, loaded };
    const heartbeat = new Heartbeat(() => calls.call('beat', undefined), BEAT_MS, onDeath);
    let cause: unknown;
    thread.on('error', (error) => {
      cause = error;
    });
    thread.on('exit', (status) => {
      heartbeat.stop();
      const why = `the thread ended by itself, with status ${status}`;
      const error = cause instanceof Error ? cause : new Error(why);
      const continues = !isLoaded && worker !== this.#workers[0];
      if (continues) {
        this.#workers.splice(this.#workers.indexOf(worker), 1);
        this.#threadsMax = this.#workers.length;
      }
      calls.end(cause === undefined ? why : `the thread failed: ${messageOf(cause)}`);
      if (!this.#closing) (continues ? onUnloadable : onDeath)(error);
    });
    this.#workers.push(worker);
    return worker;
  }
}
