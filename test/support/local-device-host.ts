/**
 * Serves devices on the test's own thread, where a test can delay and refuse a transport's calls. It opens an image, serves
 * it over NBD under its device's id, and attaches it to the kernel. Detaching reverses the order; a failure undoes all.
 */

import type { DeviceHost, DeviceState, HostedDevice } from '../../src/blockd/device-host.js';
import type { NbdExport, NbdServer } from '../../src/blockdev/nbd/nbd-server.js';
import type { AttachedDevice, Transport, TransportName } from '../../src/blockdev/transport.js';
import type { Transports } from '../../src/blockdev/transports.js';
import type { VirtualDisk } from '../../src/blockdev/virtual-disk.js';
import { type CachedBlob, figuresOf } from '../../src/cache/cached-blob.js';
import type { OpenedImage } from '../../src/image/open-image.js';

/** Shared services for all devices. */
export interface HostSurroundings {
  /** @throws {ObdError} if the image cannot be opened. */
  readonly openImage: (configPath: string) => Promise<OpenedImage<CachedBlob>>;
  readonly nbd: NbdServer;
  readonly transports: Transports;
}

export class LocalDeviceHost implements DeviceHost {
  readonly #surroundings: HostSurroundings;

  constructor(surroundings: HostSurroundings) {
    this.#surroundings = surroundings;
  }

  async attach(id: string, configPath: string, transport: TransportName): Promise<HostedDevice> {
    return await this.#serve(id, configPath, transport, (to, disk) => to.attach(id, disk));
  }

  async resume(id: string, configPath: string, transport: TransportName): Promise<HostedDevice> {
    return await this.#serve(id, configPath, transport, (to, disk) => to.resume(id, disk));
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
      return new LocalDevice(image, nbdExport, attached);
    } catch (error) {
      await nbdExport?.remove();
      image.close();
      throw error;
    }
  }
}

class LocalDevice implements HostedDevice {
  readonly #image: OpenedImage<CachedBlob>;
  readonly #export: NbdExport;
  readonly #device: AttachedDevice;

  constructor(image: OpenedImage<CachedBlob>, nbdExport: NbdExport, device: AttachedDevice) {
    this.#image = image;
    this.#export = nbdExport;
    this.#device = device;
  }

  get path(): string {
    return this.#device.path;
  }

  get isGone(): boolean {
    return this.#device.isGone;
  }

  get isDead(): boolean {
    return false;
  }

  async endReads(): Promise<void> {}

  state(): DeviceState {
    const image = this.#image;
    return {
      sizeBytes: image.disk.sizeBytes,
      layers: image.layers,
      remoteBytes: image.remoteBytes,
      ...figuresOf(image.remote),
      readErrors: this.#export.readErrors,
      waitingReads: 0,
      waitingMs: 0,
      waitingReason: '',
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
    const removed = this.#export.remove();
    // Its connections have ended; closing aborts their reads, which may wait for a registry.
    this.#image.close();
    await removed;
  }
}
