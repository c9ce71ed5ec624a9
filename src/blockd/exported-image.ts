/**
 * One image as a block device: opened, served over NBD under its id, attached to the kernel. What is done in this order
 * is undone in the reverse one, and whatever fails on the way leaves nothing.
 */
import type { NbdExport, NbdServer } from '../blockdev/nbd/nbd-server.js';
import type { AttachedDevice, Transport } from '../blockdev/transport.js';
import type { OpenedImage } from '../image/open-image.js';
import type { Device } from './blockd-client.js';

/** What images are exported through. */
export interface ExportPath {
  /** @throws {ObdError} whatever keeps the image from being opened. */
  readonly openImage: (configPath: string) => Promise<OpenedImage>;
  readonly nbd: NbdServer;
  readonly nbdSocketPath: string;
  readonly transport: Transport;
}

export class ExportedImage {
  readonly #id: string;
  readonly #configPath: string;
  readonly #path: ExportPath;
  readonly #image: OpenedImage;
  readonly #export: NbdExport;
  readonly #device: AttachedDevice;

  private constructor(
    id: string,
    configPath: string,
    path: ExportPath,
    image: OpenedImage,
    nbdExport: NbdExport,
    device: AttachedDevice,
  ) {
    this.#id = id;
    this.#configPath = configPath;
    this.#path = path;
    this.#image = image;
    this.#export = nbdExport;
    this.#device = device;
  }

  /** @throws {ObdError} what opening the image and attaching the device throw. */
  static async attach(id: string, configPath: string, path: ExportPath): Promise<ExportedImage> {
    const image = await path.openImage(configPath);
    let nbdExport: NbdExport | undefined;
    try {
      nbdExport = path.nbd.addExport(id, image.disk);
      const device = await path.transport.attach(id, image.disk);
      return new ExportedImage(id, configPath, path, image, nbdExport, device);
    } catch (error) {
      await nbdExport?.remove();
      image.close();
      throw error;
    }
  }

  /** A detach() that could not be finished: the node may be another's by now. */
  get isHalfDetached(): boolean {
    return this.#device.isGone;
  }

  /** @throws {ObdError} as AttachedDevice.detach(); the next call goes on where this one failed. */
  async detach(): Promise<void> {
    await this.#device.detach();
    const removed = this.#export.remove();
    // Its connections have ended; closing ends what they wait for, which can be a registry that does not answer.
    this.#image.close();
    await removed;
  }

  describe(): Device {
    const image = this.#image;
    const socket = encodeURIComponent(this.#path.nbdSocketPath);
    return {
      id: this.#id,
      configPath: this.#configPath,
      path: this.#device.path,
      transport: this.#path.transport.name,
      sizeBytes: image.disk.sizeBytes,
      layers: image.layers,
      remoteBytes: image.remoteBytes,
      cachedBytes: image.cachedBytes(),
      fetchedBytes: image.fetchedBytes(),
      fetchRequests: image.fetchRequests(),
      readErrors: this.#export.readErrors,
      nbdUri: `nbd+unix:///${this.#id}?socket=${socket}`,
    };
  }
}
