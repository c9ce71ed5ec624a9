/**
 * Debian's docker-registry as a process of its own: everything in memory, a port that the kernel chooses,
 * and one login if it is given. It ends with close().
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const START_MS = 10_000;

/** Why it cannot run here, for a test's `skip`; false if it can. */
export const dockerRegistryMissing: string | false =
  spawnSync('docker-registry', ['--version']).status === 0
    ? false
    : 'cannot run here: docker-registry is not installed';

export interface DockerRegistry {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  close(): Promise<void>;
}

/** @param htpasswd - A line of `user:bcrypt`; undefined lets everybody in. */
export async function startDockerRegistry(htpasswd?: string): Promise<DockerRegistry> {
  const directory = mkdtempSync(join(tmpdir(), 'obd-registry-'));
  const users = join(directory, 'htpasswd');
  writeFileSync(users, `${htpasswd ?? ''}\n`);
  const auth = htpasswd === undefined ? '' : `auth: {htpasswd: {realm: test, path: "${users}"}}\n`;
  const config = join(directory, 'config.yml');
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {inmemory: {}}\nhttp: {addr: "127.0.0.1:0"}\n${auth}`,
  );
  const child = spawn('docker-registry', ['serve', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const close = async () => {
    child.kill('SIGKILL');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  const lines = createInterface({ input: child.stderr });
  const host = await new Promise<string | undefined>((resolve) => {
    const timer = setTimeout(() => resolve(undefined), START_MS);
    // It goes on listening to the lines, so that the pipe never fills.
    lines.on('line', (line) => {
      const found = /listening on (127\.0\.0\.1:[0-9]+)/.exec(line)?.[1];
      if (found === undefined) return;
      clearTimeout(timer);
      resolve(found);
    });
    void ended.then(() => resolve(undefined));
  });
  if (host !== undefined) return { host, close };
  await close();
  throw new TypeError('docker-registry did not start');
}
