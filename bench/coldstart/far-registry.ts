/** The registry at the far end of the link: docker-registry with its blobs in memory, and far-server.ts in front. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { LocalRegistry } from '../local-registry.js';
import type { RequestRecord } from './far-server.js';
import { FAR_ADDRESS, inNamespace, type Link, REGISTRY_PORT } from './link.js';

const ORIGIN_PORT = 5001;
/** A log without a new line for so long has all requests. */
const SETTLED_MS = 150;

const REPOSITORIES = 'docker/registry/v2/repositories';
/** A registry without the referrers API has the list of an image's artifacts at such a tag. */
const isList = (tag: string): boolean => tag.startsWith('sha256-');

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
      // It says as an error that there is no artifact.
      registry.#spawn(link, ['docker-registry', 'serve', config], 'ignore');
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

  #spawn(
    link: Link,
    command: readonly string[],
    errors: 'inherit' | 'ignore' = 'inherit',
  ): ChildProcess {
    const child = spawn('nsenter', [...inNamespace(link.far), ...command], {
      stdio: ['ignore', 'pipe', errors],
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

  /**
   * Shows the artifacts of a repository's images as keepArtifacts() kept them; none for an unknown set.
   *
   * @returns Whether the set is known.
   */
  async showArtifacts(repository: string, set: string): Promise<boolean> {
    const tags = this.#tagsOf(repository);
    for (const name of (await readdir(tags)).filter(isList)) {
      await rm(join(tags, name), { recursive: true });
    }
    const kept = this.#keptOf(repository, set);
    if (!existsSync(kept)) return false;
    await cp(kept, join(this.#folder, 'registry'), { recursive: true });
    return true;
  }

  /** Keeps what was pushed since a time: the blobs, and what the repository says of them. @param sinceMs - Of Date.now(). */
  async keepArtifacts(repository: string, set: string, sinceMs: number): Promise<void> {
    const root = join(this.#folder, 'registry');
    const places = ['docker/registry/v2/blobs/sha256', join(REPOSITORIES, repository)];
    for (const place of places) {
      const found = await readdir(join(root, place), { recursive: true, withFileTypes: true });
      for (const { parentPath, name } of found.filter((entry) => entry.isFile())) {
        const path = join(parentPath, name);
        if ((await stat(path)).mtimeMs < sinceMs) continue;
        await cp(path, join(this.#keptOf(repository, set), relative(root, path)));
      }
    }
  }

  /** Changes when an artifact of an image of the repository is published. */
  async artifacts(repository: string): Promise<string> {
    const tags = this.#tagsOf(repository);
    const names = (await readdir(tags)).filter(isList);
    const links = names.map((name) => readFile(join(tags, name, 'current/link'), 'utf8'));
    return (await Promise.all(links)).join(' ');
  }

  /** Serves the same images on loopback, for changes that no link has to carry. */
  async onLoopback<T>(use: (host: string) => Promise<T>): Promise<T> {
    const folder = await mkdtemp(join(this.#folder, 'loopback.'));
    try {
      await symlink(join(this.#folder, 'registry'), join(folder, 'registry'));
      const registry = await LocalRegistry.start(folder);
      try {
        return await use(registry.host);
      } finally {
        await registry.stop();
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  #tagsOf(repository: string): string {
    return join(this.#folder, 'registry', REPOSITORIES, repository, '_manifests/tags');
  }

  #keptOf(repository: string, set: string): string {
    return join(this.#folder, 'artifacts', repository, set);
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
