/**
 * The configured plugins: each name that containerd has for us gets its own socket and store.
 *
 * containerd's garbage collection for one plugin removes every snapshot in the store that this plugin has no record of. So
 * two plugins never share a store. Devices of all stores come from one obd-blockd, under ids that hold a hash of the store's
 * path, and a store's clean-up looks only at paths below its root.
 */
import { GrpcServer } from '../grpc/grpc-server.js';
import { snapshotsService } from './snapshots-service.js';
import { Snapshotter, type SnapshotterDependencies } from './snapshotter.js';
import type { PluginConfig } from './snapshotter-config.js';

export class PluginServers {
  readonly #closers: ((graceMs: number) => Promise<void>)[] = [];

  /**
   * Resolves once all sockets are served.
   *
   * @throws {ObdError} as Snapshotter.open() and GrpcServer.listen(); then none is served.
   */
  static async open(
    plugins: ReadonlyMap<string, PluginConfig>,
    dependencies: Omit<SnapshotterDependencies, 'root'>,
  ): Promise<PluginServers> {
    const servers = new PluginServers();
    try {
      for (const [plugin, { socket, root }] of plugins) {
        const snapshotter = await Snapshotter.open({ ...dependencies, root });
        servers.#closers.push(async () => snapshotter.close());
        const server = await GrpcServer.listen(
          socket,
          [snapshotsService(snapshotter)],
          dependencies.log,
        );
        servers.#closers.push((graceMs) => server.close(graceMs));
        dependencies.log.info({ plugin, socket, root }, 'serving snapshots');
      }
      return servers;
    } catch (error) {
      await servers.close(0);
      throw error;
    }
  }

  /** Mounts and devices stay, as containers use them. @param graceMs - For calls in flight. */
  async close(graceMs: number): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      await close(graceMs);
    }
  }
}
