/**
 * Goal: the example that --help shows says the truth: it can be used as it is, and what it gives as defaults are the
 * defaults.
 * Method: the example, read as a configuration.
 */
import assert from 'node:assert/strict';
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
