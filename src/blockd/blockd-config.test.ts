/**
 * Goal: the example that --help and the manual show can be used as it is, and the defaults that it gives are the defaults.
 * Method: the example, read as a configuration.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { BLOCKD_CONFIG_EXAMPLE, blockdConfig } from './blockd-config.js';

test('the example has every key, with its default where there is one', () => {
  const written = parse(BLOCKD_CONFIG_EXAMPLE);
  assert.deepEqual(Object.keys(written).sort(), Object.keys(blockdConfig.shape).sort());
  const example = blockdConfig.parse(written);
  const { docker_config, registry, cache_size, cache_reserve, ...others } = example;
  // There is no limit by default.
  const { rate, ...fill } = others.fill;
  assert.equal(rate, 20 * 2 ** 20);
  const rest = { ...others, fill };
  const { registry: empty, ...defaults } = blockdConfig.parse({});
  assert.deepEqual(rest, defaults);
  assert.ok(docker_config !== undefined);
  assert.deepEqual(empty, { plain_http: [], hosts: {}, hosts_dir: '/etc/containerd/certs.d' });
  assert.deepEqual(Object.keys(registry).sort(), Object.keys(empty).sort());
  // Their defaults depend on the disk.
  assert.deepEqual([cache_size, cache_reserve], [20 * 2 ** 30, 10 * 2 ** 30]);
});

test('the manual has the same example', () => {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  const manual = readFileSync(join(root, 'docs', 'obd-blockd.md'), 'utf8');
  assert.ok(manual.includes(BLOCKD_CONFIG_EXAMPLE));
});

test('read_deadline takes durations with and without a unit, within its bounds', () => {
  const parsed = (value: unknown) => blockdConfig.safeParse({ read_deadline: value });
  for (const [value, ms] of [
    [600, 600_000],
    ['600', 600_000],
    ['600 s', 600_000],
    ['2.5s', 2_500],
    ['1500 ms', 1_500],
    ['10 min', 600_000],
    ['1h', 3_600_000],
  ]) {
    assert.equal(parsed(value).data?.read_deadline, ms, String(value));
  }
  for (const value of [0, -1, '0.5 s', '2 days', '25 h', '', 's', 'ten', true, Number.NaN]) {
    assert.equal(parsed(value).success, false, String(value));
  }
});
