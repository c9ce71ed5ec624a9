/**
 * Goal: an image that is made to trap the predictor costs bounded time and memory, and still gets a prediction.
 * Method: images in memory, each with as much of one trap as its own bounds allow. The limits are ten times what the traps
 * take on a busy machine; without the bounds, each would take from minutes to for ever.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { type Content, pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const MS_MAX = 60_000;
const HEAP_BYTES_MAX = 512 << 20;
const READ_BYTES_MAX = 66 << 20;
const program = elfBytes();

/** A directory of almost 1 MiB. */
function largeDirectory(path: string): Record<string, Content> {
  const files: Record<string, Content> = {};
  for (let i = 0; i < 15_000; i++) files[`${path}/${`${i}`.padStart(48, 'x')}`] = '';
  return files;
}

interface Trap {
  readonly files: Record<string, Content>;
  readonly argv: readonly string[];
  readonly env?: readonly string[];
}

const TRAPS: Readonly<Record<string, () => Trap>> = {
  'large directories in PATH, and thousands of commands': () => {
    const directories = Array.from({ length: 12 }, (_, i) => `/d${i}`);
    return {
      files: Object.assign({ '/bin/sh': program }, ...directories.map(largeDirectory)),
      argv: ['sh', '-c', Array.from({ length: 10_000 }, (_, i) => `c${i}`).join('\n')],
      env: [`PATH=/bin:${directories.join(':')}`],
    };
  },
  'patterns that match a large directory, thousands of times': () => ({
    files: {
      '/bin/nginx': program,
      '/etc/nginx/nginx.conf': 'include /d/*;\n'.repeat(15_000),
      ...largeDirectory('/d'),
    },
    argv: ['nginx'],
  }),
  'text that eval makes of itself': () => ({
    files: { '/bin/sh': program },
    argv: ['sh', '-c', `X='${'eval $X $X;'.repeat(300)}'; eval ${'$X '.repeat(20_000)}`],
  }),
  'loops in loops': () => ({
    files: { '/bin/sh': program, '/bin/tool': program },
    argv: [
      'sh',
      '-c',
      `${'for i in 1 2 3 4 5 6 7 8 9; do '.repeat(40)}tool $i$i${'; done'.repeat(40)}`,
    ],
  }),
  'a package with ten thousand exports, and files that require them': () => {
    const names = Array.from({ length: 8000 }, (_, i) => `"./${i}*": "./x"`);
    const files: Record<string, Content> = {
      '/bin/node': program,
      '/a/node_modules/p/package.json': `{"exports": {${names.join(',')}}}`,
      '/a/node_modules/p/x': '',
    };
    for (let i = 0; i < 500; i++) {
      const required = Array.from({ length: 400 }, (_, k) => `require("p/y${k}")`);
      files[`/a/f${i}.js`] = `require("./f${i + 1}.js");${required.join(';')}`;
    }
    return { files, argv: ['node', '/a/f0.js'] };
  },
  'modules with thousands of imports and constants': () => {
    const files: Record<string, Content> = {
      '/usr/bin/python3.11': program,
      '/bin/python3': { link: '/usr/bin/python3.11' },
      '/usr/lib/python3.11/os.py': '',
    };
    for (let i = 0; i < 100; i++) {
      const lines = Array.from({ length: 5000 }, (_, k) => `import a${i}_${k}\nx = "m${i}.b${k}"`);
      files[`/a/m${i}.py`] = `import m${i + 1}\n${lines.join('\n')}`;
    }
    return { files, argv: ['python3', '/a/m0.py'] };
  },
  'directories that are links to each other': () => {
    const files: Record<string, Content> = { '/bin/server': program };
    for (let i = 0; i < 200; i++) files[`/srv/a/l${i}`] = { link: i % 2 === 0 ? '.' : '../a' };
    return { files, argv: ['server', '/srv/a', '/srv/a/l0/l1/l2/l3'] };
  },
};

for (const [name, trap] of Object.entries(TRAPS)) {
  test(`bounded: ${name}`, async () => {
    const { files, argv, env = [] } = trap();
    const heapBytes = process.memoryUsage().heapUsed;
    const begin = performance.now();
    const prediction = await predictionOf(files, argv, { env });
    const milliseconds = performance.now() - begin;
    assert.ok(milliseconds < MS_MAX, `${milliseconds} ms`);
    assert.ok(process.memoryUsage().heapUsed - heapBytes < HEAP_BYTES_MAX);
    assert.ok(prediction.readBytes < READ_BYTES_MAX, `${prediction.readBytes} bytes read`);
    assert.ok(pathsOf(prediction).length > 0);
  });
}
