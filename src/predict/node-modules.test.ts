/** Goal: what Node.js reads of an application, by its own rules of resolution. Method: packages of each form in images in memory. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { type Content, pathsOf, predictionOf } from '../../test/support/predicted-image.js';

async function read(
  files: Record<string, Content>,
  argv = ['node', 'server.js'],
  env: string[] = [],
) {
  const all = { '/bin/node': elfBytes(), ...files };
  return pathsOf(await predictionOf(all, argv, { cwd: '/app', env }), 'node');
}

const modules = '/app/node_modules';

describe('Node.js', () => {
  test('requires files, directories, packages by main, and JSON, depth first', async () => {
    const paths = await read({
      '/app/package.json': '{"name": "app"}',
      '/app/server.js': "const a = require('a'); require('./lib'); require('fs'); require(name)",
      '/app/lib/index.js': 'require("./data.json"); require("../absent")',
      '/app/lib/data.json': '{}',
      [`${modules}/a/package.json`]: '{"main": "./lib/main"}',
      [`${modules}/a/lib/main.js`]: "require('b')",
      [`${modules}/a/unused.js`]: '',
      [`${modules}/b/index.js`]: "require('a')",
    });
    assert.deepEqual(paths, [
      '/app/package.json',
      '/app/server.js',
      `${modules}/a/package.json`,
      `${modules}/a/lib/main.js`,
      `${modules}/b/index.js`,
      '/app/lib/index.js',
      '/app/lib/data.json',
    ]);
  });

  test('imports by exports with conditions and by #imports', async () => {
    const paths = await read({
      '/app/package.json': '{"type": "module", "imports": {"#own": "./own.js"}}',
      '/app/server.js':
        'import x from "c/deep";\nimport "#own"; import "e";\nexport * from "@s/d";\nawait import("./late.js")',
      '/app/own.js': '',
      '/app/late.js': '',
      [`${modules}/c/package.json`]:
        '{"exports": {"./deep": {"import": "./deep.mjs", "default": "./deep.cjs"}}}',
      [`${modules}/c/deep.mjs`]: '',
      [`${modules}/c/deep.cjs`]: '',
      [`${modules}/@s/d/package.json`]: '{"exports": "./d.js"}',
      [`${modules}/@s/d/d.js`]: '',
      [`${modules}/e/package.json`]:
        '{"exports": {"module-sync": "./sync.mjs", "default": "./e.js"}}',
      [`${modules}/e/sync.mjs`]: '',
      [`${modules}/e/e.js`]: '',
    });
    for (const path of [
      '/app/own.js',
      '/app/late.js',
      `${modules}/c/deep.mjs`,
      `${modules}/@s/d/d.js`,
      `${modules}/e/sync.mjs`,
    ]) {
      assert.ok(paths.includes(path), path);
    }
  });

  test('loads add-ons with their libraries, and what -r and NODE_OPTIONS name', async () => {
    const paths = await read(
      {
        '/app/server.js': 'require("./build/addon.node")',
        '/app/build/addon.node': elfBytes({ needed: ['libz.so'] }),
        '/lib/libz.so': elfBytes(),
        '/app/first.js': '',
        [`${modules}/trace/index.js`]: '',
      },
      ['node', '-r', './first.js', '--enable-source-maps', 'server'],
      ['NODE_OPTIONS=--require trace'],
    );
    for (const path of [
      '/app/first.js',
      `${modules}/trace/index.js`,
      '/app/build/addon.node',
      '/lib/libz.so',
    ]) {
      assert.ok(paths.includes(path), path);
    }
  });

  test('goes on after a damaged package.json, and ends with thousands of files', async () => {
    const files: Record<string, Content> = {
      '/app/server.js': "require('e'); require('./f0')",
      [`${modules}/e/package.json`]: '{"exports": ',
      [`${modules}/e/index.js`]: '',
    };
    for (let i = 0; i < 2000; i++)
      files[`/app/f${i}.js`] = `require('./f${i + 1}'); require('./f0')`;
    const paths = await read(files);
    assert.ok(paths.includes('/app/f9.js') && paths.length <= 1500);
  });
});
