/**
 * Goal: the example that --help and the manual show says the truth: it can be used as it is, and what it gives as
 * defaults are the defaults.
 * Method: the example, read as a configuration.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { BLOCKD_CONFIG_EXAMPLE, blockdConfig } from './blockd-config.js';

test('the example has every key, with its default where there is one', () => {
  const example = blockdConfig.parse(parse(BLOCKD_CONFIG_EXAMPLE));
  assert.deepEqual(Object.keys(example).sort(), Object.keys(blockdConfig.shape).sort());
  const { docker_config, registry, ...rest } = example;
  const { registry: empty, ...defaults } = blockdConfig.parse({});
  assert.deepEqual(rest, defaults);
  assert.ok(docker_config !== undefined);
  assert.deepEqual(empty, { plain_http: [], hosts: {} });
  assert.deepEqual(Object.keys(registry), Object.keys(empty));
});

test('the manual has the same example', () => {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  const manual = readFileSync(join(root, 'docs', 'obd-blockd.md'), 'utf8');
  assert.ok(manual.includes(BLOCKD_CONFIG_EXAMPLE));
});
