/**
 * The ublk driver's control commands. They wait in threads of the kernel, so the calling thread can answer the device's
 * requests at the same time. Each waits at most COMMAND_MS_MAX here.
 */
import { getSystemErrorName } from 'node:util';
import { ErrorCodes, messageOf, ObdError } from '../../errors.js';
import { type NativeControl, ublkAddon } from './ublk-addon.js';
import {
  type CommandName,
  Commands,
  type DeviceInfo,
  type DeviceParameters,
  decodeInfo,
  decodeParameters,
  emptyParameters,
  encodeCommand,
  encodeInfo,
  encodeParameters,
  FEATURES_BYTES,
  INFO_BYTES,
} from './ublk-protocol.js';

const CONTROL_PATH = '/dev/ublk-control';
/** STOP_DEV waits for the answers to reads in flight; its callers end reads that wait for a registry. */
const COMMAND_MS_MAX = 90_000;
const NOTHING = new Uint8Array(0);

interface Waiting {
  readonly resolve: (result: number) => void;
  readonly timer: NodeJS.Timeout;
}

export class UblkControl {
  readonly #waiting = new Map<number, Waiting>();
  #tokens = 0;
  readonly #native: NativeControl;

  /** @throws system errors: of io_uring_setup, or of opening the control device. */
  private constructor() {
    this.#native = new ublkAddon.Control(CONTROL_PATH, (token, result) => {
      const waiting = this.#waiting.get(token);
      this.#waiting.delete(token);
      clearTimeout(waiting?.timer);
      waiting?.resolve(result);
    });
  }

  static #ofThread: UblkControl | undefined;

  /** The instance of this thread: it holds a ring, and is open as long as the thread. @throws as the constructor does. */
  static ofThread(): UblkControl {
    UblkControl.#ofThread ??= new UblkControl();
    return UblkControl.#ofThread;
  }

  /** @returns The added device: `deviceId` and features are the driver's. @throws {ObdError} `Host` without permission. */
  async add(wanted: DeviceInfo): Promise<DeviceInfo> {
    const payload = encodeInfo(wanted);
    await this.#expect('ADD_DEV', wanted.deviceId, 0, payload);
    return decodeInfo(payload);
  }

  async setParameters(deviceId: number, parameters: DeviceParameters): Promise<void> {
    await this.#expect('SET_PARAMS', deviceId, 0, encodeParameters(parameters));
  }

  async parameters(deviceId: number): Promise<DeviceParameters> {
    const payload = emptyParameters();
    await this.#expect('GET_PARAMS', deviceId, 0, payload);
    return decodeParameters(payload);
  }

  /** Resolves when the block device is there. All requests must have been fetched. */
  async start(deviceId: number): Promise<void> {
    await this.#expect('START_DEV', deviceId, process.pid, NOTHING);
  }

  /** Takes the block device away; its queue must be served until then, or be closed. Idempotent. */
  async stop(deviceId: number): Promise<void> {
    await this.#expect('STOP_DEV', deviceId, 0, NOTHING, 'ENODEV');
  }

  /** Resolves when no process has the device open any more. Idempotent. */
  async remove(deviceId: number): Promise<void> {
    await this.#expect('DEL_DEV', deviceId, 0, NOTHING, 'ENODEV');
  }

  /** Undefined if there is no such device, or it is another user's. */
  async info(deviceId: number): Promise<DeviceInfo | undefined> {
    const payload = new Uint8Array(INFO_BYTES);
    const result = await this.#run('GET_DEV_INFO', deviceId, 0, payload);
    return result === 0 ? decodeInfo(payload) : undefined;
  }

  /** @returns The name of the error, or undefined. */
  async startRecovery(deviceId: number): Promise<string | undefined> {
    const result = await this.#run('START_USER_RECOVERY', deviceId, 0, NOTHING);
    return result < 0 ? getSystemErrorName(result) : undefined;
  }

  /** All requests must have been fetched. */
  async endRecovery(deviceId: number): Promise<void> {
    await this.#expect('END_USER_RECOVERY', deviceId, process.pid, NOTHING);
  }

  /** The low 32 bits; undefined where the driver is too old to say. */
  async features(): Promise<number | undefined> {
    const payload = new Uint8Array(FEATURES_BYTES);
    const result = await this.#run('GET_FEATURES', 0, 0, payload);
    return result === 0 ? new DataView(payload.buffer).getUint32(0, true) : undefined;
  }

  async #expect(
    command: CommandName,
    deviceId: number,
    data: number,
    payload: Uint8Array,
    harmless?: string,
  ): Promise<void> {
    const result = await this.#run(command, deviceId, data, payload);
    if (result >= 0) return;
    const name = getSystemErrorName(result);
    if (name !== harmless) throw failure(command, deviceId, name);
  }

  async #run(
    command: CommandName,
    deviceId: number,
    data: number,
    payload: Uint8Array,
  ): Promise<number> {
    const token = this.#tokens++ % 2 ** 32;
    const done = new Promise<number>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(token);
        const what = `${command} has not ended in ${COMMAND_MS_MAX / 1000} s`;
        const message = `Cannot go on with ublk device ${deviceId}: ${what}`;
        reject(new ObdError(ErrorCodes.Io, message, { path: CONTROL_PATH }));
      }, COMMAND_MS_MAX);
      this.#waiting.set(token, { resolve, timer });
    });
    try {
      this.#native.submit(token, Commands[command], encodeCommand(deviceId, data), payload);
    } catch (cause) {
      clearTimeout(this.#waiting.get(token)?.timer);
      this.#waiting.delete(token);
      const message = `Cannot give a command to "${CONTROL_PATH}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path: CONTROL_PATH }, cause);
    }
    return done;
  }
}

function failure(command: CommandName, deviceId: number, name: string): ObdError {
  const message = `ublk's ${command} failed for device ${deviceId}: ${name}`;
  if (name === 'EPERM' || name === 'EACCES') {
    return new ObdError(ErrorCodes.Host, `${message}; it takes CAP_SYS_ADMIN`, {
      path: CONTROL_PATH,
    });
  }
  return new ObdError(ErrorCodes.Io, message, { path: CONTROL_PATH });
}
