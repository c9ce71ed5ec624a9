/** Debian's docker-registry on a free port, with its blobs in files, and functions to push layers to it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ErrorCodes, ObdError } from '../src/errors.js';
import { RegistryClient } from '../src/registry/registry-client.js';
import { RegistryHosts } from '../src/registry/registry-hosts.js';

const REPOSITORY = 'bench/image';

export class LocalRegistry {
  /** host:port, speaking plain HTTP. */
  readonly host: string;
  readonly #child: ChildProcess;
  readonly #client = new RegistryClient({
    hosts: new RegistryHosts([]),
    credentials: { label: 'none', find: async () => undefined },
  });

  private constructor(host: string, child: ChildProcess) {
    this.host = host;
    this.#child = child;
  }

  static async start(folder: string): Promise<LocalRegistry> {
    const config = join(folder, 'registry.json');
    // JSON is YAML.
    const settings = {
      version: '0.1',
      log: { level: 'info', accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: join(folder, 'registry') } },
      http: { addr: '127.0.0.1:0' },
    };
    await writeFile(config, JSON.stringify(settings));
    const child = spawn('docker-registry', ['serve', config], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const spawned = once(child, 'spawn').catch((error: unknown) => {
      const message = 'Cannot run the benchmark: docker-registry is not installed';
      throw new ObdError(ErrorCodes.Host, message, {}, error);
    });
    await spawned;
    for await (const line of createInterface({ input: child.stderr })) {
      const host = /listening on (127\.0\.0\.1:[0-9]+)/.exec(line)?.[1];
      if (host === undefined) continue;
      // Its further output must be read, or it would block.
      child.stderr.resume();
      return new LocalRegistry(host, child);
    }
    throw new ObdError(ErrorCodes.Io, 'docker-registry does not start');
  }

  /** The blobs' address, for an image config. */
  get blobsUrl(): string {
    return `http://${this.host}/v2/${REPOSITORY}/blobs`;
  }

  /** @returns The layer's digest and size. */
  async push(path: string): Promise<{ digest: string; size: number }> {
    const bytes = await readFile(path);
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const descriptor = { mediaType: 'application/octet-stream', digest, size: bytes.length };
    await this.#client.putBlob(this.host, REPOSITORY, {
      descriptor,
      content: path,
      onBytes: undefined,
    });
    return { digest, size: bytes.length };
  }

  async stop(): Promise<void> {
    await this.#client.close();
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await ended;
  }
}
