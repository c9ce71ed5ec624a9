/**
 * Goal: a host set up by docs/install.md and docs/snapshotter.md pulls lazily with every client, from a registry at a port
 * and without TLS, and pulls into overlayfs as before.
 * Method: the documents' own blocks, written to their paths in namespaces (test/support/documented-host.ts), with Debian's
 * containerd, and with a containerd from 2.1 on if one is in PATH.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { blockdUnfit } from '../support/blockd-process.js';
import { unfit } from '../support/containerd-private.js';
import { folderOfContainerd } from '../support/cri-containerd.js';
import { trustCase } from '../support/trust-case.js';

const HOST_MS_MAX = 240_000;
const newer = folderOfContainerd([2, 1]);
const DEBIAN = '/usr/bin:/usr/sbin:/bin:/sbin';
const HOST = join(import.meta.dirname, '..', 'support', 'documented-host.js');

for (const [major, path] of [
  ['1', DEBIAN],
  ['2', `${newer}:${DEBIAN}`],
] as const) {
  const clients = major === '1' ? ['rpull', 'CRI'] : ['rpull', 'CRI', 'ctr'];
  trustCase(
    'documented-setup',
    `a host set up by the documents, containerd ${major}`,
    `${clients.join(', ')} lazy; overlayfs and a second name run; doctor content`,
    async () => {
      const seen = await setUp(major, path);
      for (const client of clients) assert.match(seen[client] ?? '', /^lazy( lazy)*$/, client);
      assert.equal(seen['run'], 'rpull');
      assert.equal(seen['overlayfs'], 'plain');
      assert.equal(seen['names'], 'named rpull');
      assert.equal(seen['doctor'], 'ok');
      return Object.entries(seen)
        .map(([what, value]) => `${what}: ${value}`)
        .join(', ');
    },
    { skip: reasonToSkip(major, path), timeout: HOST_MS_MAX + 60_000, slow: major === '2' },
  );
}

async function setUp(major: string, path: string): Promise<Record<string, string>> {
  const folder = mkdtempSync('/var/tmp/obdh.');
  const isolated = ['--mount', '--net', '--pid', '--mount-proc', '--fork', '--kill-child'];
  const options = {
    timeout: HOST_MS_MAX,
    killSignal: 'SIGKILL',
    env: { ...process.env, PATH: path },
  } as const;
  try {
    const command = [...isolated, process.execPath, HOST, folder, major];
    const { stdout } = await promisify(execFile)('unshare', command, options);
    return JSON.parse(stdout) as Record<string, string>;
  } catch (error) {
    const logs = readdirSync(folder).filter((name) => name.endsWith('.log'));
    const ends = logs.map(
      (name) => `${name}:\n${readFileSync(join(folder, name), 'utf8').slice(-3000)}`,
    );
    throw new Error(`${(error as { stderr?: string }).stderr}\n${ends.join('\n')}`, {
      cause: error,
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function reasonToSkip(major: '1' | '2', path: string): string | undefined {
  const lacking = unfit || blockdUnfit;
  if (lacking !== false) return lacking;
  if (major === '2') return newer === undefined ? 'no containerd from 2.1 on in PATH' : undefined;
  const options = { env: { PATH: path }, encoding: 'utf8' } as const;
  if (/[ v]1[.][0-9]+[.]/.test(execFileSync('containerd', ['--version'], options)))
    return undefined;
  return 'the containerd that is installed is not 1.x';
}
