/**
 * The daemon as an object: what it opens when it starts, in this order, and gives back when it stops, in the other.
 *
 *   cache      takes the state directory for this process alone, so all that follows is alone
 *   past runs  of a daemon that was killed: what nobody has mounted goes, what is mounted is reported
 *   NBD        disks by name; the kernel's devices read through it
 *   devices    the table of what is attached, empty at start: who needs a device asks for it
 *   control    last, so that whoever can connect can be served
 *
 * Devices that are in use when the daemon stops stay mounted and answer EIO to what the page cache does not hold; only
 * unmounting helps them. The next run takes away what is left of those that were unmounted meanwhile.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { FuseTransport } from '../blockdev/fuse/fuse-transport.js';
import { NbdServer, type ReadFailure } from '../blockdev/nbd/nbd-server.js';
import { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { GrpcServer } from '../grpc/grpc-server.js';
import { readImageConfig } from '../image/image-config.js';
import { openImage } from '../image/open-image.js';
import { DockerCredentials } from '../registry/docker-credentials.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { BlockdConfig } from './blockd-config.js';
import { blockdService } from './blockd-service.js';
import { DeviceTable } from './device-table.js';
import { RunDirectory } from './run-directory.js';

/** For calls under way when the daemon stops. */
const CALLS_GRACE_MS = 5_000;
/** Decoded blocks that several reads share a part of; the page cache keeps the rest. */
const DECODED_BYTES = 64 << 20;

export class Blockd {
  readonly #log: Logger;
  /** What to do to stop, last first. */
  readonly #closers: (() => unknown)[] = [];

  private constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * Serves when it resolves.
   *
   * @throws {ObdError} `Busy` if another daemon has the state directory or a socket, `InvalidArgument` for what no
   *   registry can be called, `Host`, `Io`. Nothing is left running.
   */
  static async start(config: BlockdConfig, log: Logger): Promise<Blockd> {
    const daemon = new Blockd(log);
    try {
      await daemon.#start(config);
      return daemon;
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  async #start(config: BlockdConfig): Promise<void> {
    const log = this.#log;
    const { plain_http: plainHttp, hosts } = config.registry;
    const client = new RegistryClient({
      hosts: new RegistryHosts(plainHttp, hosts),
      credentials: new DockerCredentials(config.docker_config),
    });
    const cacheDirectory = join(config.state_dir, 'cache');
    const devicesDirectory = join(config.state_dir, 'devices');
    await makeDirectories(cacheDirectory, devicesDirectory);
    const cache = await BlockCache.open(cacheDirectory, {
      capacityBytes: config.cache_size,
      report: (err) => log.warn({ err }, 'the cache goes on without what failed'),
    });
    this.#closers.push(() => cache.close());

    const run = await RunDirectory.make(devicesDirectory);
    this.#closers.push(() => run.remove());
    await this.#clearPast(run);

    const nbdSocketPath = config.nbd_socket;
    const nbd = await NbdServer.listen(nbdSocketPath, (failure) => logReadFailure(log, failure));
    this.#closers.push(() => nbd.close());

    const decoded = new DecodedBlocks(DECODED_BYTES);
    const table = new DeviceTable({
      openImage: async (configPath) => {
        await this.#clearPast(run);
        return await openImage(await readImageConfig(configPath), { cache, client, decoded });
      },
      nbd,
      nbdSocketPath,
      transport: new FuseTransport(nbd, nbdSocketPath, run.path),
    });
    this.#closers.push(() => this.#detachAll(table));
    const control = await GrpcServer.listen(config.socket, [blockdService(table, log)], log);
    this.#closers.push(() => control.close(CALLS_GRACE_MS));
    // First, so that no call and no device waits for a registry that does not answer.
    this.#closers.push(() => client.close());
  }

  /** Gives back everything, whatever fails on the way, which is logged. Idempotent. */
  async stop(): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      try {
        await close();
      } catch (err) {
        this.#log.error({ err }, 'cannot stop in order');
      }
    }
  }

  async #clearPast(run: RunDirectory): Promise<void> {
    const { cleared, inUse } = await run.clearPast();
    if (cleared.length > 0) this.#log.info({ ids: cleared }, 'cleared away devices of a past run');
    if (inUse.length === 0) return;
    this.#log.warn({ ids: inUse }, 'devices of a past run are still mounted: unmount them');
  }

  async #detachAll(table: DeviceTable): Promise<void> {
    for (const err of await table.close()) {
      this.#log.warn({ err }, 'a device stays behind, and will answer EIO: unmount it');
    }
  }
}

/** For root alone: what is read here may be anyone's image. */
async function makeDirectories(...paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    try {
      await mkdir(path, { recursive: true, mode: 0o700 });
    } catch (cause) {
      const message = `Cannot make the directory "${path}": ${messageOf(cause)}; check state_dir`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }
}

/** The message names blob and registry. */
function logReadFailure(log: Logger, { exportName, offset, length, error }: ReadFailure): void {
  log.error({ id: exportName, offset, length, err: error }, 'a read is answered with EIO');
}
