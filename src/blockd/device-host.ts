/** Where devices are served: what the table of devices needs of it, whichever thread that is. */
import type { TransportName } from '../blockdev/transport.js';
import type { Device } from './blockd-client.js';

export interface HostedDevice {
  readonly path: string;
  /** As AttachedDevice.isGone. */
  readonly isGone: boolean;
  describe(): Device;
  /** As AttachedDevice.detach(), and closes the image. */
  detach(): Promise<void>;
  /** As AttachedDevice.release(), and closes the image. */
  release(): Promise<void>;
}

export interface DeviceHost {
  /** Opens the image and attaches it. @throws {ObdError} what either throws; nothing is left behind. */
  attach(id: string, configPath: string, transport: TransportName): Promise<HostedDevice>;
  /** Opens the image and resumes the survivor. @throws {ObdError} what either throws; the survivor stays as it was. */
  resume(id: string, configPath: string, transport: TransportName): Promise<HostedDevice>;
}
