/** A node: obd-blockd in this process, with the fuse transport and a state directory of its own. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { Blockd } from '../../src/blockd/blockd.js';
import { BlockdClient, type Device } from '../../src/blockd/blockd-client.js';
import { blockdConfig } from '../../src/blockd/blockd-config.js';
import type { ExpectRequest } from '../../src/grpc/gen/obd/blockd/v1/ExpectRequest.js';
import { writeImageConfig } from '../../src/image/image-config.js';
import { OCI_MANIFEST } from '../../src/oci/media-types.js';
import type { LogLine } from './blockd-process.js';
import { NbdReader } from './nbd-reader.js';
import { PAGE_BYTES } from './proved-layer.js';
import type { PlacedImage } from './start-image.js';

const LOGGED_MS_MAX = 60_000;
const READ_BYTES = 32 * PAGE_BYTES;

export interface NodeSettings {
  readonly publishes?: boolean;
  /** As `use` of [load_order]. */
  readonly uses?: boolean;
  readonly cacheBytes?: number;
  readonly reserveBytes?: number;
}

/** A client tells this of an image that it pulls. */
export function requestOf({ host, repository, manifest, layers }: PlacedImage): ExpectRequest {
  return {
    host,
    repository,
    manifest: manifest.digest,
    manifestBytes: manifest.size,
    manifestType: OCI_MANIFEST,
    layers: layers.map(({ digest, blob, hashTree }) => {
      return { digest, sizeBytes: blob.length, root: hashTree?.root ?? '' };
    }),
  };
}

export async function writeConfigOf(image: PlacedImage, path: string): Promise<void> {
  const lowers = image.layers.map(({ digest, blob, hashTree }) => {
    return { digest, size: blob.length, ...(hashTree && { hashTree }) };
  });
  const repoBlobUrl = `http://${image.host}/v2/${image.repository}/blobs`;
  const rest = { upper: {}, resultFile: '', accelerationLayer: false };
  await writeImageConfig(path, { repoBlobUrl, lowers, ...rest });
}

/** A device of an image, read by NBD. */
export class StartedImage {
  readonly id: string;
  readonly path: string;
  readonly disk: NbdReader;
  readonly #image: PlacedImage;
  readonly #node: StartNode;

  constructor(node: StartNode, device: Device, disk: NbdReader, image: PlacedImage) {
    this.#node = node;
    this.id = device.id;
    this.path = device.path;
    this.disk = disk;
    this.#image = image;
  }

  /** Reads pages of the disk one by one, each of which has to be right. @returns How many ms each took. */
  async readPages(pages: readonly number[]): Promise<number[]> {
    const tookMs: number[] = [];
    for (const page of pages) {
      const beganMs = performance.now();
      await this.#readRight(page * PAGE_BYTES, PAGE_BYTES);
      tookMs.push(performance.now() - beganMs);
    }
    return tookMs;
  }

  async readAll(): Promise<void> {
    const { length } = this.#image.disk;
    for (let at = 0; at < length; at += READ_BYTES) {
      await this.#readRight(at, Math.min(READ_BYTES, length - at));
    }
  }

  async state(): Promise<Device> {
    const devices = await this.#node.client.list();
    return devices.find(({ id }) => id === this.id)!;
  }

  async end(): Promise<void> {
    await this.disk.close();
    await this.#node.client.detach(this.id);
  }

  async #readRight(at: number, length: number): Promise<void> {
    const found = await this.disk.read(at, length);
    const right = this.#image.disk.subarray(at, at + length);
    assert.ok(found.equals(right), `[${at}, +${length}) of ${this.id} is wrong`);
  }
}

export class StartNode {
  readonly directory: string;
  readonly client: BlockdClient;
  readonly lines: LogLine[] = [];
  readonly #settings: NodeSettings;
  #daemon: Blockd | undefined;
  #ids = 0;

  private constructor(directory: string, settings: NodeSettings) {
    this.directory = directory;
    this.#settings = settings;
    this.client = new BlockdClient(join(directory, 'blockd.sock'));
  }

  static async start(settings: NodeSettings = {}): Promise<StartNode> {
    const node = new StartNode(await mkdtemp('/var/tmp/obdp.'), settings);
    await node.comeUp();
    return node;
  }

  /** Runs `work` with a node of its own. */
  static async with(settings: NodeSettings, work: (node: StartNode) => Promise<void>) {
    const node = await StartNode.start(settings);
    try {
      await work(node);
    } finally {
      await node.stop();
    }
  }

  async comeUp(): Promise<void> {
    const {
      publishes = false,
      uses = true,
      cacheBytes = 1 << 30,
      reserveBytes = 0,
    } = this.#settings;
    const config = blockdConfig.parse({
      socket: join(this.directory, 'blockd.sock'),
      nbd_socket: join(this.directory, 'nbd.sock'),
      state_dir: this.stateDirectory,
      docker_config: join(this.directory, 'docker.json'),
      cache_size: cacheBytes,
      cache_reserve: reserveBytes,
      transport: 'fuse',
      registry: { hosts_dir: join(this.directory, 'certs.d') },
      load_order: { publish: publishes, use: uses },
    });
    const log = pino(
      { formatters: { level: (level) => ({ level }) } },
      { write: (line) => this.lines.push(JSON.parse(line)) },
    );
    this.#daemon = await Blockd.start(config, log, assert.fail);
  }

  async goDown(): Promise<void> {
    await this.#daemon?.stop();
    this.#daemon = undefined;
  }

  get stateDirectory(): string {
    return join(this.directory, 'state');
  }

  /** Takes all devices away. */
  async stop(): Promise<void> {
    if (this.#daemon !== undefined) {
      const devices = await this.client.list();
      await Promise.allSettled(devices.map(({ id }) => this.client.detach(id)));
    }
    await this.goDown();
    this.client.close();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** As a client does that pulls the image. */
  async expect(image: PlacedImage, wish: Partial<ExpectRequest> = {}): Promise<void> {
    await this.client.expect({ ...requestOf(image), ...wish });
  }

  async attach(image: PlacedImage): Promise<StartedImage> {
    const id = `d${++this.#ids}`;
    const configPath = join(this.directory, `${id}.json`);
    await writeConfigOf(image, configPath);
    const device = await this.client.attach(id, configPath);
    return new StartedImage(this, device, await this.connect(id), image);
  }

  /** The disk of a device by its id. */
  async connect(id: string): Promise<NbdReader> {
    return await NbdReader.open(join(this.directory, 'nbd.sock'), id);
  }

  /** Expects the image, and attaches it. */
  async begin(image: PlacedImage, wish: Partial<ExpectRequest> = {}): Promise<StartedImage> {
    await this.expect(image, wish);
    return await this.attach(image);
  }

  /** Waits until `count` lines have that text. @returns The last of them. */
  async logged(msg: string, count = 1): Promise<LogLine> {
    const untilMs = performance.now() + LOGGED_MS_MAX;
    for (;;) {
      const found = this.lines.filter((line) => line.msg === msg);
      if (found.length >= count) return found[count - 1]!;
      if (performance.now() > untilMs) {
        assert.fail(`it did not log "${msg}" ${count} times: ${JSON.stringify(this.lines)}`);
      }
      await sleep(20);
    }
  }

  /** The texts of its warnings, and errors. */
  warnings(): string[] {
    const bad = this.lines.filter(({ level }) => level === 'warn' || level === 'error');
    return bad.map(({ msg }) => msg);
  }
}
