/**
 * Goal: doctor checks each setting that docs/install.md asks of containerd's configuration, in the tables of containerd
 * 1.x and of 2.x, and names each known mistake with its remedy.
 * Method: configurations as `containerd config dump` prints them.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { type ContainerdFacts, checkContainerdConfig } from './containerd-checks.js';

const SOCKET = '/run/obd-ts/snapshotter.sock';
const PLUGIN = `
[proxy_plugins.obd-ts]
  type = "snapshot"
  address = "${SOCKET}"`;
const EXPORTS = `
[proxy_plugins.obd-ts.exports]
  root = "/var/lib/obd-ts/snapshotter"
  enable_remote_snapshot_annotations = "true"`;
const unpack = (...names: string[]) =>
  ['[plugins."io.containerd.transfer.v1.local"]\nmax_concurrent_downloads = 3\n']
    .concat(
      names.map(
        (name) =>
          `[[plugins."io.containerd.transfer.v1.local".unpack_config]]\nplatform = "linux"\nsnapshotter = "${name}"\n`,
      ),
    )
    .join('');
const cri2 = (more = '') =>
  `[plugins."io.containerd.cri.v1.images"]\nsnapshotter = "obd-ts"\n${more.includes('disable_') ? '' : 'disable_snapshot_annotations = true\n'}${more.includes('use_local') ? '' : 'use_local_image_pull = false\n'}${more}\n`;
const cri1 = (disabled: boolean) =>
  `[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "obd-ts"\ndisable_snapshot_annotations = ${disabled}\n`;

function checked(toml: string, more: Partial<ContainerdFacts> = {}): Map<string, string> {
  const facts = {
    config: parse(toml),
    version: '2.4.2',
    plugins: [{ name: 'obd-ts', problem: undefined, isProxy: true }],
    configPath: '/etc/containerd/config.toml',
    snapshotterSocket: SOCKET,
    stores: new Map([[SOCKET, '/var/lib/obd-ts/snapshotter']]),
    isStore: (root: string) => root === '/var/lib/obd-ts/snapshotter',
    ...more,
  };
  const results = checkContainerdConfig(facts);
  return new Map(
    results.map(({ what, state, found, remedy }) => [what, `${state} ${found} ${remedy}`]),
  );
}

function assertSays(results: Map<string, string>, what: string, ...words: (string | RegExp)[]) {
  const said = results.get(what) ?? '';
  for (const word of words) assert.match(said, new RegExp(word), what);
}

test('accepts the configuration of docs/install.md', () => {
  const results = checked(
    PLUGIN + EXPORTS + unpack('overlayfs', 'obd-ts').replace(/^/, '\n') + cri2(),
  );
  for (const [what, said] of results) assert.match(said, /^ok /, what);
  const old = checked(`${PLUGIN}\n${cri1(false)}`, { version: '1.6.20' });
  for (const [what, said] of old) assert.match(said, /^(ok|info) /, what);
});

test('reports a plugin that is absent, has another address or is not loaded', () => {
  assertSays(checked(''), 'containerd plugin', '^missing', 'proxy_plugins.obd-ts');
  const moved = PLUGIN.replace(SOCKET, '/other.sock');
  assertSays(checked(moved), 'containerd plugin', '^missing', '/other.sock', SOCKET);
  assertSays(checked(PLUGIN, { plugins: [] }), 'containerd has loaded it', '^missing', 'restart');
  const problem = [{ name: 'obd-ts', problem: 'it did not start', isProxy: true }];
  assertSays(checked(PLUGIN, { plugins: problem }), 'containerd has loaded it', 'did not start');
  assertSays(
    checked(PLUGIN, { plugins: 'no answer' }),
    'containerd has loaded it',
    '^warn no answer',
  );
  assertSays(
    checked(PLUGIN, { config: 'cannot parse' }),
    'containerd plugin',
    '^warn cannot parse',
  );
});

test('finds two names at one socket, in any spelling of the address', () => {
  const second = PLUGIN.replace('obd-ts]', 'overlaybd]').replace('"/run', '"unix:///run');
  assertSays(
    checked(PLUGIN + second),
    'plugin names',
    '^missing',
    'overlaybd',
    SOCKET,
    'snapshotter.toml',
  );
  const own = second.replace('snapshotter.sock', 'overlaybd.sock');
  assertSays(checked(PLUGIN + own), 'plugin names', '^ok');
});

test('finds two names at one socket through a symbolic link to it', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'obd-doctor-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [socket, link] = [join(folder, 'socket'), join(folder, 'link')];
  writeFileSync(socket, '');
  symlinkSync(socket, link);
  const one = PLUGIN.replace(SOCKET, socket);
  const two = PLUGIN.replace('obd-ts]', 'overlaybd]').replace(SOCKET, link);
  assertSays(checked(one + two), 'plugin names', '^missing', 'overlaybd');
});

test('asks for exports only if this containerd uses them', () => {
  assertSays(
    checked(PLUGIN),
    'plugin exports',
    '^warn',
    'enable_remote_snapshot_annotations',
    'root',
  );
  const rootless = EXPORTS.replace(/root = .*/, '');
  assertSays(checked(PLUGIN + rootless), 'plugin exports', '^warn no root');
  const off = EXPORTS.replace('"true"', '"false"');
  assertSays(checked(PLUGIN + off), 'plugin exports', '^warn no enable_');
  assertSays(checked(PLUGIN, { version: '2.0.5' }), 'plugin exports', '^info');
});

test('warns of an unpack_config without overlayfs or without obd-ts', () => {
  const what = 'transfer service';
  assertSays(checked(unpack('obd-ts')), what, '^warn', 'lacks overlayfs', 'default snapshotter');
  assertSays(checked(unpack('overlayfs')), what, '^warn not told of obd-ts', '"overlayfs"');
  assertSays(checked(unpack()), what, '^warn not told of obd-ts');
  assertSays(checked(''), what, '^info');
});

test('warns if CRI sends no references', () => {
  assertSays(
    checked(cri2('image_pull_with_sync_fs = true')),
    'CRI',
    '^warn',
    'image_pull_with_sync_fs',
  );
  assertSays(
    checked(cri2('use_local_image_pull = true')),
    'CRI',
    '^warn',
    'use_local_image_pull',
    'disable_snapshot',
  );
  const mended = 'use_local_image_pull = true\ndisable_snapshot_annotations = false';
  assertSays(checked(cri2(mended)), 'CRI', '^ok');
  assertSays(checked(cri1(true)), 'CRI', '^warn', 'disable_snapshot_annotations = false');
  assertSays(checked(cri1(true).replace('obd-ts', 'overlayfs')), 'CRI', '^info', 'overlayfs');
});

test('finds the capability rebase, a missing root and a foreign platform, but no other spelling of a socket', () => {
  const second = PLUGIN.replace('obd-ts]', 'overlaybd]').replace('/run/', '/run//obd-none/../');
  assertSays(checked(PLUGIN + second), 'plugin names', '^missing', 'overlaybd');
  const rebase = `${PLUGIN}\n  capabilities = ["rebase"]`;
  assertSays(checked(rebase), 'containerd plugin', '^missing', 'remove "rebase"');
  const elsewhere = EXPORTS.replace(/root = .*/, 'root = "/var/lib/elsewhere"');
  assertSays(
    checked(PLUGIN + elsewhere),
    'plugin exports',
    '^warn root "/var/lib/elsewhere" is not the snapshotter',
  );
  const rootless = EXPORTS.replace(/root = .*/, 'root = ""');
  assertSays(checked(PLUGIN + rootless), 'plugin exports', '^warn no root');
  const foreign = unpack('overlayfs', 'obd-ts').replace(/"linux"(?!.*overlayfs)/g, '"linux/s390x"');
  assertSays(checked(foreign), 'transfer service', '^warn', 'linux/s390x', '"linux"');
});

test('checks every name whose address is a socket of the snapshotter', () => {
  const stores = new Map([
    [SOCKET, '/var/lib/obd-ts/snapshotter'],
    ['/run/obd-ts/overlaybd.sock', '/var/lib/obd-ts/overlaybd'],
  ]);
  const renamed = (text: string, name: string) => text.replace('obd-ts', name);
  const plugins = ['lazy', 'overlaybd'].map((name) => ({
    name,
    problem: undefined,
    isProxy: true,
  }));

  // Under another name alone.
  const lazy = renamed(PLUGIN, 'lazy');
  const alone = checked(lazy, { stores, plugins });
  assertSays(alone, 'containerd plugin', '^ok lazy at');
  assertSays(alone, 'containerd has loaded it', '^ok');
  assertSays(alone, 'plugin exports', '^warn', 'proxy_plugins.lazy.exports');
  assertSays(
    checked(lazy + renamed(EXPORTS, 'lazy'), { stores, plugins }),
    'plugin exports',
    '^ok',
  );
  assertSays(
    checked(cri2().replace('obd-ts', 'lazy') + lazy, { stores, plugins }),
    'CRI',
    '^ok pulls into lazy',
  );
  assertSays(checked(unpack('overlayfs', 'lazy') + lazy), 'transfer service', '^ok');

  // Besides obd-ts, with a store of its own.
  const second = renamed(PLUGIN, 'overlaybd').replace('snapshotter.sock', 'overlaybd.sock');
  const both = PLUGIN + EXPORTS + second;
  const loaded = [...plugins, { name: 'obd-ts', problem: undefined, isProxy: true }];
  const found = checked(both, { stores, plugins: loaded });
  assertSays(found, 'plugin exports', '^ok');
  assertSays(found, 'containerd plugin (overlaybd)', '^ok overlaybd at');
  assertSays(found, 'plugin exports (overlaybd)', '^warn', 'no enable_', 'no root');
  const wrong = renamed(EXPORTS, 'overlaybd');
  const told = checked(both + wrong, { stores, plugins: loaded });
  assertSays(told, 'plugin exports (overlaybd)', '^warn root', '/var/lib/obd-ts/overlaybd of');
  const right = wrong.replace('/snapshotter"', '/overlaybd"');
  assertSays(checked(both + right, { stores }), 'plugin exports (overlaybd)', '^ok');
  assertSays(
    checked(both, { stores, plugins: [] }),
    'containerd has loaded it (overlaybd)',
    '^missing .*"overlaybd"',
  );
  const content = both.replace(
    '"snapshot"\n  address = "/run/obd-ts/overlaybd',
    '"content"\n  address = "/run/obd-ts/overlaybd',
  );
  assertSays(
    checked(content, { stores }),
    'containerd plugin (overlaybd)',
    '^missing',
    'proxy_plugins.overlaybd',
  );
});
