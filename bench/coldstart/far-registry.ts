/** The registry at the far end of the link: docker-registry with its blobs in memory, and far-server.ts in front. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import type { RequestRecord } from './far-server.js';
import { FAR_ADDRESS, inNamespace, type Link, REGISTRY_PORT } from './link.js';

const ORIGIN_PORT = 5001;
/** A log without a new line for so long has all requests. */
const SETTLED_MS = 150;

/** What `ctr` and the others call it. */
export const FAR_HOST = `${FAR_ADDRESS}:${REGISTRY_PORT}`;

export class FarRegistry {
  readonly #folder: string;
  readonly #children: ChildProcess[] = [];
  readonly #records: RequestRecord[] = [];

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async start(link: Link): Promise<FarRegistry> {
    const folder = await mkdtemp('/dev/shm/obdcs.');
    const registry = new FarRegistry(folder);
    try {
      const root = join(folder, 'registry');
      await mkdir(join(root, 'docker/registry/v2/blobs/sha256'), { recursive: true });
      const settings = {
        version: '0.1',
        log: { level: 'error', accesslog: { disabled: true } },
        storage: { filesystem: { rootdirectory: root } },
        http: { addr: `127.0.0.1:${ORIGIN_PORT}` },
      };
      const config = join(folder, 'registry.json');
      await writeFile(config, JSON.stringify(settings));
      registry.#spawn(link, ['docker-registry', 'serve', config]);
      const server = join(import.meta.dirname, `far-server${import.meta.filename.slice(-3)}`);
      const blobs = join(root, 'docker/registry/v2/blobs/sha256');
      const front = registry.#spawn(link, [process.execPath, server, `${ORIGIN_PORT}`, blobs]);
      const lines = createInterface({ input: front.stdout! });
      const ended = once(front, 'exit').then(() => {
        throw new ObdError(ErrorCodes.Io, 'The far registry ended at its start');
      });
      await Promise.race([once(lines, 'line'), ended]);
      ended.catch(() => {});
      lines.on('line', (line) => registry.#records.push(JSON.parse(line) as RequestRecord));
      return registry;
    } catch (error) {
      await registry.stop();
      throw error;
    }
  }

  #spawn(link: Link, command: readonly string[]): ChildProcess {
    const child = spawn('nsenter', [...inNamespace(link.far), ...command], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    child.stdout!.resume();
    this.#children.push(child);
    return child;
  }

  /** Adds the images of a docker-registry's storage folder. */
  async add(storage: string): Promise<void> {
    await cp(storage, join(this.#folder, 'registry'), { recursive: true, force: true });
  }

  /** Removes all images. */
  async clear(): Promise<void> {
    const repositories = join(this.#folder, 'registry/docker/registry/v2');
    for (const name of ['repositories', 'blobs']) {
      await rm(join(repositories, name), { recursive: true, force: true });
    }
    await mkdir(join(repositories, 'blobs/sha256'), { recursive: true });
  }

  /** Forgets the requests so far. */
  beginLog(): void {
    this.#records.length = 0;
  }

  /** The requests since beginLog(), by their arrival. */
  async log(): Promise<readonly RequestRecord[]> {
    let count: number;
    do {
      count = this.#records.length;
      await sleep(SETTLED_MS);
    } while (this.#records.length !== count);
    return this.#records.toSorted((a, b) => a.at - b.at);
  }

  async stop(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.pid === undefined) continue;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    }
    await rm(this.#folder, { recursive: true });
  }
}
