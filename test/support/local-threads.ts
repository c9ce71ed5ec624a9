/**
 * The daemon's device threads, on the test's own thread: WorkerDevices at the other end of a MessageChannel, with
 * transports that the test can delay and refuse.
 */
import { EventEmitter } from 'node:events';
import { MessageChannel, type MessagePort, type WorkerOptions } from 'node:worker_threads';
import { WorkerDevices } from '../../src/blockd/worker-devices.js';
import type { WorkerSettings } from '../../src/blockd/worker-messages.js';
import type { DeviceProgram, DeviceThread } from '../../src/blockd/worker-pool.js';
import type { Transports } from '../../src/blockdev/transports.js';

class LocalThread extends EventEmitter implements DeviceThread {
  readonly #port: MessagePort;

  constructor(settings: WorkerSettings, transports: Transports) {
    super();
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.on('message', (message) => this.emit('message', message));
    new WorkerDevices(port2, settings, () => transports);
  }

  postMessage(message: unknown): void {
    this.#port.postMessage(message);
  }

  async terminate(): Promise<void> {
    this.#port.close();
    this.emit('exit', 0);
  }
}

/** @param transports - Used by all threads. */
export function localThreads(transports: Transports): DeviceProgram {
  return {
    isUnchanged: () => true,
    start: ({ workerData }: WorkerOptions) =>
      new LocalThread(workerData as WorkerSettings, transports),
  };
}
