/**
 * Serves devices on the thread it is made on. An image is opened, served over NBD under its device's id, and attached to
 * the kernel; what is done in this order is undone in the reverse one, and whatever fails on the way leaves nothing.
 */
import type { NbdExport, NbdServer } from '../blockdev/nbd/nbd-server.js';
import type { AttachedDevice, Transport, TransportName } from '../blockdev/transport.js';
import type { Transports } from '../blockdev/transports.js';
import type { VirtualDisk } from '../blockdev/virtual-disk.js';
import { type CachedBlob, figuresOf } from '../cache/cached-blob.js';
import type { OpenedImage } from '../image/open-image.js';
import type { DeviceHost, DeviceState, HostedDevice } from './device-host.js';

/** What images are served with. */
export interface HostSurroundings {
  /** @throws {ObdError} whatever keeps the image from being opened. */
  readonly openImage: (configPath: string) => Promise<OpenedImage<CachedBlob>>;
  readonly nbd: NbdServer;
  readonly transports: Transports;
}

export class LocalDeviceHost implements DeviceHost {
  readonly #surroundings: HostSurroundings;
  readonly #devices = new Map<string, LocalDevice>();

  constructor(surroundings: HostSurroundings) {
    this.#surroundings = surroundings;
  }

  async attach(id: string, configPath: string, transport: TransportName): Promise<HostedDevice> {
    return await this.#serve(id, configPath, transport, (to, disk) => to.attach(id, disk));
  }

  async resume(id: string, configPath: string, transport: TransportName): Promise<HostedDevice> {
    return await this.#serve(id, configPath, transport, (to, disk) => to.resume(id, disk));
  }

  /** One read of the device was answered with an error by its transport. */
  countReadError(id: string): void {
    const device = this.#devices.get(id);
    if (device !== undefined) device.readErrors++;
  }

  async #serve(
    id: string,
    configPath: string,
    transport: TransportName,
    connect: (transport: Transport, disk: VirtualDisk) => Promise<AttachedDevice>,
  ): Promise<HostedDevice> {
    const { openImage, nbd, transports } = this.#surroundings;
    const image = await openImage(configPath);
    let nbdExport: NbdExport | undefined;
    try {
      nbdExport = nbd.addExport(id, image.disk);
      const attached = await connect(transports[transport], image.disk);
      const device = new LocalDevice(image, nbdExport, attached, () => this.#devices.delete(id));
      this.#devices.set(id, device);
      return device;
    } catch (error) {
      await nbdExport?.remove();
      image.close();
      throw error;
    }
  }
}

class LocalDevice implements HostedDevice {
  readErrors = 0;
  readonly #image: OpenedImage<CachedBlob>;
  readonly #export: NbdExport;
  readonly #device: AttachedDevice;
  readonly #forget: () => void;

  constructor(
    image: OpenedImage<CachedBlob>,
    nbdExport: NbdExport,
    device: AttachedDevice,
    forget: () => void,
  ) {
    this.#image = image;
    this.#export = nbdExport;
    this.#device = device;
    this.#forget = forget;
  }

  get path(): string {
    return this.#device.path;
  }

  get isGone(): boolean {
    return this.#device.isGone;
  }

  state(): DeviceState {
    const image = this.#image;
    return {
      sizeBytes: image.disk.sizeBytes,
      layers: image.layers,
      remoteBytes: image.remoteBytes,
      ...figuresOf(image.remote),
      readErrors: this.readErrors + this.#export.readErrors,
    };
  }

  async detach(): Promise<void> {
    await this.#device.detach();
    await this.#close();
  }

  async release(): Promise<void> {
    await this.#device.release();
    await this.#close();
  }

  async #close(): Promise<void> {
    this.#forget();
    const removed = this.#export.remove();
    // Its connections have ended; closing ends what they wait for, which can be a registry that does not answer.
    this.#image.close();
    await removed;
  }
}
