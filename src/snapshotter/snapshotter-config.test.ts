/**
 * Goal: the example that --help shows is valid and its defaults are the real ones; the manual lists every key.
 * Method: the example, read as a configuration; the manual, searched.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { ErrorCodes } from '../errors.js';
import { pluginsOf, SNAPSHOTTER_CONFIG_EXAMPLE, snapshotterConfig } from './snapshotter-config.js';

test('the example has every key, with its default where there is one', () => {
  const written = parse(SNAPSHOTTER_CONFIG_EXAMPLE);
  assert.deepEqual(Object.keys(written).sort(), Object.keys(snapshotterConfig.shape).sort());
  const example = snapshotterConfig.parse(written);
  const { docker_config, registry, plugins, namespaces, ...rest } = example;
  const { registry: empty, ...others } = snapshotterConfig.parse({});
  const { plugins: noPlugins, namespaces: noNamespaces, ...defaults } = others;
  assert.deepEqual(rest, defaults);
  assert.ok(docker_config !== undefined);
  assert.deepEqual([Object.keys(namespaces), noNamespaces, noPlugins], [['team-a'], {}, {}]);
  assert.deepEqual([...pluginsOf(example).keys()], ['obd-ts', ...Object.keys(plugins)]);
  assert.deepEqual(Object.keys(registry).sort(), Object.keys(empty).sort());
});

test('the manual has every key', () => {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  const manual = readFileSync(join(root, 'docs', 'snapshotter.md'), 'utf8');
  for (const key of Object.keys(snapshotterConfig.shape)) {
    assert.match(manual, new RegExp(`^\\| \`\\[?${key}`, 'm'));
  }
});

test('a root that overlayfs could not be told of is refused', () => {
  for (const root of ['/a b', '/a:b', '/a,b', '/a\\b', 'relative']) {
    assert.equal(snapshotterConfig.safeParse({ root }).success, false, root);
  }
});

test('plugins that share a socket or a store are refused', () => {
  const main = { socket: '/run/a.sock', root: '/var/a' };
  for (const [name, plugin] of [
    ['overlaybd', { socket: '/run/a.sock', root: '/var/b' }],
    ['overlaybd', { socket: '/run/b.sock', root: '/var/a' }],
    ['overlaybd', { socket: '/run/b.sock', root: '/var/a/snapshots' }],
    ['overlaybd', { socket: '/run/b.sock', root: '/var/./a//snapshots' }],
    ['overlaybd', { socket: '/run/../run/a.sock', root: '/var/b' }],
    ['obd-ts', { socket: '/run/b.sock', root: '/var/b' }],
  ] as const) {
    const config = snapshotterConfig.parse({ ...main, plugins: { [name]: plugin } });
    assert.throws(() => pluginsOf(config), { code: ErrorCodes.InvalidArgument });
  }
  const above = { ...main, root: '/var/a/b', plugins: { x: { socket: '/run/b', root: '/var/a' } } };
  assert.throws(() => pluginsOf(snapshotterConfig.parse(above)), {
    code: ErrorCodes.InvalidArgument,
  });
});
