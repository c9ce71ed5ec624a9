/**
 * The common registry (distribution, Debian's docker-registry), as a private process that can stop and restart at the same
 * address. Tests can damage its files, because it checks none of the bytes it serves.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

const START_MS_MAX = 20_000;

/** Why the registry cannot run here; false if it can. */
export const registryUnfit = reasonToSkip();

export class PrivateRegistry {
  readonly directory: string;
  #child: ChildProcess | undefined;
  /** The first start picks the port; later ones keep it. */
  #address = '127.0.0.1:0';

  readonly #more: object;

  private constructor(directory: string, more: object) {
    this.directory = directory;
    this.#more = more;
  }

  /**
   * @param htpasswd - A line of `user:bcrypt`; undefined needs no login.
   * @param remoteUrl - Makes it a pull-through cache of this registry.
   */
  static async start(htpasswd?: string, remoteUrl?: string): Promise<PrivateRegistry> {
    const directory = await mkdtemp('/var/tmp/obdr.');
    const path = join(directory, 'htpasswd');
    if (htpasswd !== undefined) writeFileSync(path, `${htpasswd}\n`);
    const auth = htpasswd === undefined ? {} : { auth: { htpasswd: { realm: 'test', path } } };
    const proxy = remoteUrl === undefined ? {} : { proxy: { remoteurl: remoteUrl } };
    const registry = new PrivateRegistry(directory, { ...auth, ...proxy });
    await registry.comeBack();
    return registry;
  }

  /** host:port, speaking plain HTTP. */
  get host(): string {
    return this.#address;
  }

  async comeBack(): Promise<void> {
    const config = join(this.directory, 'config.json');
    // JSON is YAML.
    const settings = {
      version: '0.1',
      log: { level: 'info', accesslog: { disabled: false } },
      storage: { filesystem: { rootdirectory: join(this.directory, 'data') } },
      http: { addr: this.#address },
      ...this.#more,
    };
    writeFileSync(config, JSON.stringify(settings));
    const log = join(this.directory, 'log');
    const output = openSync(log, 'w');
    const child = spawn('docker-registry', ['serve', config], {
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.#child = child;
    const deadline = Date.now() + START_MS_MAX;
    for (;;) {
      const text = readFileSync(log, 'utf8');
      const found = /listening on (127\.0\.0\.1:[0-9]+)/.exec(text)?.[1];
      if (found !== undefined) {
        this.#address = found;
        return;
      }
      if (child.exitCode !== null || Date.now() > deadline) {
        child.kill('SIGKILL');
        assert.fail(text);
      }
      await setTimeout(20);
    }
  }

  async goAway(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** @returns The blob's digest. */
  async push(repository: string, bytes: Uint8Array): Promise<string> {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const uploads = `http://${this.host}/v2/${repository}/blobs/uploads/`;
    const begun = await fetch(uploads, { method: 'POST' });
    const location = new URL(begun.headers.get('location') ?? '');
    location.searchParams.set('digest', digest);
    const headers = { 'content-type': 'application/octet-stream' };
    const body = new Uint8Array(bytes);
    const put = await fetch(location, { method: 'PUT', headers, body });
    assert.equal(put.status, 201);
    return digest;
  }

  /** The file that it serves a blob from. */
  blobFile(digest: string): string {
    const hex = digest.slice('sha256:'.length);
    const blobs = join(this.directory, 'data/docker/registry/v2/blobs/sha256');
    return join(blobs, hex.slice(0, 2), hex, 'data');
  }

  async stop(): Promise<void> {
    await this.goAway();
    await rm(this.directory, { recursive: true });
  }
}

function reasonToSkip(): string | false {
  try {
    execFileSync('docker-registry', ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'docker-registry is not installed';
  }
}
