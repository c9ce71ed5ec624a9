/** Goal: every form of import, permission, circle and table row that breaks the rules is reported, and no other. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { layeringProblems, roomTableProblems } from './layering.js';

/** Problems of the imports alone: with a few files at hand, most permissions are unused. */
function problemsOf(...files: Array<readonly [path: string, text: string]>): string[] {
  const problems = layeringProblems(files.map(([path, text]) => ({ path, text })));
  return problems.filter((problem) => !problem.includes('is not used'));
}

describe('layeringProblems()', () => {
  const bad: Array<[name: string, path: string, text: string, says: RegExp]> = [
    [
      'a format that imports the network',
      'src/lsmt/a.ts',
      "import './x.js';\nimport { a } from '../registry/a.js';",
      /src\/lsmt\/a.ts:2: src\/lsmt may not import src\/registry\/a.ts/,
    ],
    ['an import for its side effects', 'src/zfile/a.ts', "import '../blockd/a.js';", /may not/],
    ['an import of types', 'src/zfile/a.ts', "import type { A } from '../blockd/a.js';", /may not/],
    ['a type query', 'src/zfile/a.ts', "let a: import('../blockd/a.js').A;", /may not/],
    ['a dynamic import', 'src/zfile/a.ts', "await import(\n  '../blockd/a.js',\n);", /may not/],
    [
      'an export',
      'src/zfile/a.ts',
      "export {\n  a,\n} from '../blockd/a.js';",
      /a.ts:3: .*may not/,
    ],
    ['a resolved path', 'src/zfile/a.ts', "import.meta.resolve('../blockd/a.js')", /may not/],
    ['a require', 'src/zfile/a.ts', "createRequire(import.meta.url)('../blockd/a.js')", /may not/],
    ['a URL', 'src/zfile/a.ts', "new URL('../blockd/a.js', import.meta.url)", /may not/],
    [
      'the module of a thread',
      'src/zfile/a.ts',
      "new ThreadProgram(import.meta.url, '../blockd/a')",
      /may not import src\/blockd\/a.ts/,
    ],
    [
      'a transport that imports another',
      'src/blockdev/ublk/a.ts',
      "import { a } from '../tcmu/a.js';",
      /src\/blockdev\/ublk may not import src\/blockdev\/tcmu/,
    ],
    [
      'a program that imports another',
      'src/cli/obdctl/a.ts',
      "import { a } from '../obdconv/a.js';",
      /may not/,
    ],
    [
      'what programs share importing a program',
      'src/cli/a.ts',
      "import { a } from './obdctl/a.js';",
      /may not/,
    ],
    [
      'another file of a room than its door',
      'src/snapshotter/a.ts',
      "import { a } from '../blockd/a.js';",
      /may not/,
    ],
    [
      'test support in product code',
      'src/lsmt/a.ts',
      "import { a } from '../../test/support/a.js';",
      /may not/,
    ],
    ['a file outside the rooms', 'src/a.ts', "import { a } from './lsmt/a.js';", /may not/],
    ['a room without a row', 'src/attic/a.ts', '', /not in tools\/layering.ts/],
  ];
  for (const [name, path, text, says] of bad) {
    test(`reports ${name}`, () => {
      assert.match(problemsOf([path, text]).join('\n'), says);
    });
  }

  test('accepts permitted rooms, doors, src/io, and test support in tests', () => {
    const good: Array<readonly [string, string]> = [
      ['src/snapshotter/a.ts', "import '../blockd/blockd-client.js';\nimport '../io/b.js';"],
      ['src/snapshotter/b.ts', "import '../errors.js';\nimport '../oci/a.js';\nimport './c.js';"],
      ['src/blockdev/transports.ts', "import './ublk/ublk-transport.js';"],
      ['src/lsmt/a.test.ts', "import '../../test/support/a.js';"],
      ['src/image/a.test.ts', "import '../cache/a.js';"],
      ['src/zfile/a.ts', "// import '../blockd/a.js';\nconst a = '../blockd/a.js';"],
    ];
    assert.deepEqual(problemsOf(...good), []);
  });

  test('reports a permission and a door that only a test uses', () => {
    const [path, text] = ['src/pull/a', "import '../oci/a.js'; import '../snapshotter/labels.js';"];
    const unusedWith = (name: string) =>
      layeringProblems([{ path: name, text }]).filter((problem) => /permission pull/.test(problem));
    assert.equal(unusedWith(`${path}.test.ts`).length, 5);
    assert.equal(unusedWith(`${path}.ts`).length, 3);
  });

  test('reports a circle, even one of types', () => {
    const circle = problemsOf(
      ['src/zfile/a.ts', "import './b.js';"],
      ['src/zfile/b.ts', "import './c.js';\nimport './d.js';"],
      ['src/zfile/c.ts', ''],
      ['src/zfile/d.ts', "import type { A } from './a.js';"],
    );
    assert.deepEqual(circle.length, 1);
    assert.match(
      circle.join(),
      /d.ts:1: circle src\/zfile\/a.ts -> src\/zfile\/b.ts -> src\/zfile\/d.ts/,
    );
  });
});

describe('roomTableProblems()', () => {
  const problemsIn = (...rows: string[]) =>
    roomTableProblems('a.md', rows.join('\n')).filter((problem) => !/no row/.test(problem));

  test('accepts rows equal to the table, also several folders in one', () => {
    const rows = [
      '| `src/registry/` | client | oci |',
      '| `src/tar/`, `src/ext4/` | formats | - |',
    ];
    assert.deepEqual(problemsIn(...rows), []);
  });

  test('reports a row that differs, an unknown folder and a missing row', () => {
    assert.match(problemsIn('| `src/registry/` | client | io |').join(), /a.md:1: .*write: oci/);
    assert.match(problemsIn('| `src/attic/` | dust | - |').join(), /src\/attic differs/);
    assert.match(roomTableProblems('a.md', '').join('\n'), /no row for src\/lsmt\//);
  });
});
