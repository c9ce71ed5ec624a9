/**
 * The kernel's nbd driver, as far as a server of its devices asks for it: typed calls, and errors that say what to do.
 *
 * A call can take as long as the kernel's work does and runs in the thread pool. File descriptors stay the caller's:
 * the kernel takes separate references to the sockets it accepts.
 */
import { release } from 'node:os';
import { type ErrorCode, ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { hasSysAdmin } from '../../io/capabilities.js';
import { loadNativeAddon } from '../../io/native-addon.js';

/** The first kernel with BACKEND_IDENTIFIER. */
const BACKEND_SINCE = [5, 14] as const;
const MODULE_MISSING =
  'the module nbd is not loaded, or not for this network namespace: `modprobe nbd`, and run in the namespace of the host';
const PRIVILEGE_MISSING = 'it takes CAP_SYS_ADMIN: run as root';

/** CLIENT_FLAGS: the device node goes away with the connection. */
export const DESTROY_ON_DISCONNECT = 1;

export interface ConnectOptions {
  /** Past the handshake; the kernel's end of each. */
  readonly sockets: readonly number[];
  readonly sizeBytes: number;
  /** A power of two from 512 to the page size. */
  readonly blockSize: number;
  /** TransmissionFlags. */
  readonly serverFlags: number;
  readonly clientFlags: number;
  /** How long a request may take before the kernel gives up its connection; 0 for no limit while there is only one. */
  readonly timeoutSeconds: number;
  /** How long requests wait for a connection when all are dead. */
  readonly deadConnTimeoutSeconds: number;
  /** The content of /sys/block/nbdN/backend; reconfigure() has to give the same. */
  readonly backendIdentifier: string;
  /** Made if it is not there. */
  readonly index: number;
}

export interface ReconfigureOptions {
  readonly index: number;
  /** Each takes the place of a connection that the kernel knows to be dead; for the others nothing happens, silently. */
  readonly sockets: readonly number[];
  readonly deadConnTimeoutSeconds: number;
  readonly backendIdentifier: string;
}

/** The exports of native/nbd-client-napi. */
interface Addon {
  connect(options: ConnectOptions): Promise<number>;
  reconfigure(options: ReconfigureOptions): Promise<void>;
  disconnect(index: number): Promise<void>;
  status(index?: number): Promise<{ index: number; connected: boolean }[]>;
  socketPair(): [number, number];
  close(fd: number): void;
  isHungUp(fd: number): boolean;
}

const addon = loadNativeAddon('nbd-client-napi', 'nbd_client') as Addon;

/** @throws {ObdError} `Busy` if the index is taken or going away, `Host`, `NoSpace`, `Io`. */
export async function connectDevice(options: ConnectOptions): Promise<void> {
  try {
    await addon.connect(options);
  } catch (error) {
    // The kernel says EINVAL both for a device that is just going away and for invalid options.
    throw asObdError(error, `Cannot make /dev/nbd${options.index}`, {
      EBUSY: ErrorCodes.Busy,
      EEXIST: ErrorCodes.Busy,
      EINVAL: ErrorCodes.Busy,
    });
  }
}

/** @throws {ObdError} `NotFound` if there is no such device, or it is disconnected or another's; `Host`, `Io`. */
export async function reconfigureDevice(options: ReconfigureOptions): Promise<void> {
  try {
    await addon.reconfigure(options);
  } catch (error) {
    throw asObdError(error, `Cannot reconnect /dev/nbd${options.index}`, {
      EINVAL: ErrorCodes.NotFound,
    });
  }
}

/**
 * Returns when no request of the device is in flight any more. A process that has it open still holds it.
 * @throws {ObdError} `Host`, `Io`.
 */
export async function disconnectDevice(index: number): Promise<void> {
  try {
    await addon.disconnect(index);
  } catch (error) {
    throw asObdError(error, `Cannot disconnect /dev/nbd${index}`, {});
  }
}

/** Whether this process can reach an nbd driver, or what it lacks for that, with the remedy. @throws {ObdError} `Io`. */
export async function unavailableReason(): Promise<string | undefined> {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  if (major < BACKEND_SINCE[0] || (major === BACKEND_SINCE[0] && minor < BACKEND_SINCE[1])) {
    return `kernel ${release()} does not keep the name of a device: it takes ${BACKEND_SINCE.join('.')} or newer`;
  }
  try {
    // Asks about one device: the answer about all of them grows with their number.
    await addon.status(0);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return MODULE_MISSING;
    throw asObdError(error, 'Cannot ask for an NBD device', {});
  }
  return (await hasSysAdmin()) ? undefined : PRIVILEGE_MISSING;
}

/** Both ends of a connection on this host, which no child process inherits. @throws {ObdError} `Io`. */
export function openSocketPair(): [number, number] {
  try {
    return addon.socketPair();
  } catch (error) {
    throw asObdError(error, 'Cannot make a pair of sockets', {});
  }
}

export function closeSocket(fd: number): void {
  addon.close(fd);
}

/** Whether no process holds the other end any more. */
export function isHungUp(fd: number): boolean {
  return addon.isHungUp(fd);
}

/** @param meanings - The errors that mean something else in this call than in all others. */
function asObdError(
  cause: unknown,
  action: string,
  meanings: Readonly<Record<string, ErrorCode>>,
): ObdError {
  const name = systemCode(cause) ?? '';
  switch (name) {
    case 'ENOENT':
      return new ObdError(ErrorCodes.Host, `${action}: ${MODULE_MISSING}`, {}, cause);
    case 'EPERM':
    case 'EACCES':
      return new ObdError(ErrorCodes.Host, `${action}: ${PRIVILEGE_MISSING}`, {}, cause);
    case 'ENOMEM':
    case 'EMFILE':
    case 'ENFILE':
      return new ObdError(ErrorCodes.NoSpace, `${action}: ${messageOf(cause)}`, {}, cause);
    default:
      return new ObdError(
        meanings[name] ?? ErrorCodes.Io,
        `${action}: ${messageOf(cause)}`,
        {},
        cause,
      );
  }
}
