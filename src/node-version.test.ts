/** Goal: the floor that the programs check is the one that package.json states, and it is checked to the minor version. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ErrorCodes } from './errors.js';
import { isNodeSupported, NODE_WANTED, requireNode } from './node-version.js';

test('the oldest version is the one of package.json and of tools/node/floor', () => {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  const read = (path: string) => JSON.parse(readFileSync(join(root, path), 'utf8'));
  assert.equal(read('package.json').engines.node, `>=${NODE_WANTED.join('.')}`);
  const floor = `${NODE_WANTED.join('.')}.0`;
  const { optionalDependencies } = read('tools/node/floor/package.json');
  assert.deepEqual([...new Set(Object.values(optionalDependencies))], [floor]);
});

test('requireNode() refuses an older Node, and says how to get a newer one', () => {
  for (const version of ['22.20.0', '22.21.3', '23.0.0', '24.21.0', '100.0.0']) {
    assert.ok(isNodeSupported(version), version);
    requireNode(version);
  }
  for (const version of ['18.20.4', '20.20.2', '22.19.9', '9.0.0']) {
    assert.throws(() => requireNode(version), {
      code: ErrorCodes.Host,
      message: new RegExp(`Node ${version}.*22\\.20.*install-deps`),
    });
  }
});
