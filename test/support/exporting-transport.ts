/**
 * A FuseTransport with the server that it needs: each disk is exported as long as its device is served, as in the
 * daemon.
 */
import { FuseTransport } from '../../src/blockdev/fuse/fuse-transport.js';
import type { NbdServer } from '../../src/blockdev/nbd/nbd-server.js';
import type {
  AttachedDevice,
  OrphanedDevice,
  Transport,
  TransportCapabilities,
} from '../../src/blockdev/transport.js';
import type { VirtualDisk } from '../../src/blockdev/virtual-disk.js';
import { exportDisk } from './exported-disk.js';

export class ExportingTransport implements Transport {
  readonly name = 'fuse';
  readonly capabilities: TransportCapabilities;
  readonly #server: NbdServer;
  readonly #fuse: FuseTransport;
  readonly #exported = new Set<string>();

  /** @param server - Listens at `socketPath`. */
  constructor(server: NbdServer, socketPath: string, directory: string) {
    this.#server = server;
    this.#fuse = new FuseTransport(socketPath, directory);
    this.capabilities = this.#fuse.capabilities;
  }

  unavailableReason(): Promise<string | undefined> {
    return this.#fuse.unavailableReason();
  }

  attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return this.#exporting(id, disk, () => this.#fuse.attach(id, disk));
  }

  orphans(): Promise<OrphanedDevice[]> {
    return this.#fuse.orphans();
  }

  resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return this.#exporting(id, disk, () => this.#fuse.resume(id, disk));
  }

  clear(id: string): Promise<void> {
    return this.#fuse.clear(id);
  }

  async #exporting(
    id: string,
    disk: VirtualDisk,
    serve: () => Promise<AttachedDevice>,
  ): Promise<AttachedDevice> {
    // The transport itself must report that.
    if (this.#exported.has(id)) return await serve();
    const exported = exportDisk(this.#server, id, disk);
    this.#exported.add(id);
    let withdrawn: Promise<void> | undefined;
    const withdraw = async () => {
      withdrawn ??= exported.remove().then(() => void this.#exported.delete(id));
      await withdrawn;
    };
    try {
      const device = await serve();
      return {
        path: device.path,
        get isGone() {
          return device.isGone;
        },
        detach: async () => {
          await device.detach();
          await withdraw();
        },
        release: async () => {
          await device.release();
          await withdraw();
        },
      };
    } catch (error) {
      await withdraw();
      throw error;
    }
  }
}
