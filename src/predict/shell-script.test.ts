/**
 * Goal: entry point scripts are followed to the programs that they start, and hostile ones end.
 * Method: scripts of the forms that official images use, in images in memory.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { type Content, pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const program = elfBytes();
const base: Record<string, Content> = {
  '/bin/sh': program,
  '/bin/server': program,
  '/bin/tool': program,
};

async function started(files: Record<string, Content>, argv: readonly string[], options = {}) {
  return pathsOf(await predictionOf({ ...base, ...files }, argv, options));
}

describe('a shell', () => {
  test('runs the text of -c, with its redirections, pipes and substitutions', async () => {
    const paths = await started({ '/bin/a': program, '/bin/b': program }, [
      'sh',
      '-c',
      'mkdir -p /x && x=$(a 2>/dev/null) | b; exec server -f',
    ]);
    for (const path of ['/bin/sh', '/bin/a', '/bin/b', '/bin/server'])
      assert.ok(paths.includes(path));
    assert.ok(!paths.includes('/bin/tool'));
  });

  test('passes the arguments of the image on by exec "$@", also those that set -- adds', async () => {
    const script =
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
      '#!/bin/sh\nif [ "${1#-}" != "$1" ]; then\n  set -- server "$@"\nfi\nexec "$@"\n';
    for (const args of [['server', '-x'], ['-x']]) {
      const paths = await started({ '/entry.sh': script }, ['/entry.sh', ...args]);
      assert.deepEqual(paths.filter((path) => path !== '/bin/sh').slice(0, 2), [
        '/entry.sh',
        '/bin/server',
      ]);
    }
  });

  test('sources files, whose variables name programs', async () => {
    const files = {
      '/app/start': '#!/bin/sh\n. "$(dirname "$0")/settings.sh"\neval exec "\\"$RUN\\"" "$@"\n',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
      '/app/settings.sh': 'if [ -z "$RUN" ]; then RUN=${HOME_OF_IT:-/opt}/bin/run; fi\n',
      '/opt/bin/run': program,
      '/srv/bin/run': program,
    };
    const byDefault = await started(files, ['/app/start']);
    assert.ok(byDefault.includes('/app/settings.sh') && byDefault.includes('/opt/bin/run'));
    const named = await started(files, ['/app/start'], { env: ['HOME_OF_IT=/srv'] });
    assert.ok(named.includes('/srv/bin/run') && !named.includes('/opt/bin/run'));
  });

  test('finds a program in PATH whose directory only other programs could tell', async () => {
    const script =
      '#!/bin/sh\nTOOLS=`dirname `which server``\nexec "$TOOLS/server" --port 80 /app/tool\n';
    const paths = await started({ '/app/start': script }, ['/app/start']);
    assert.ok(paths.includes('/bin/server') && !paths.includes('/bin/tool'));
  });

  test('runs each file of a for loop over a pattern', async () => {
    const prediction = await predictionOf(
      {
        ...base,
        '/entry.sh': '#!/bin/sh\nfor f in /init.d/*.sh; do "$f"; done\n',
        '/init.d/1.sh': '#!/bin/sh\ntool\n',
        '/init.d/2.txt': 'no script',
      },
      ['/entry.sh'],
    );
    const paths = pathsOf(prediction, 'shell');
    assert.ok(paths.includes('/init.d/1.sh') && paths.includes('/bin/tool'));
    assert.ok(!paths.includes('/init.d/2.txt'));
  });

  test('follows JAVA_HOME where a command stays unknown', async () => {
    const files = {
      '/opt/jdk/bin/java': program,
      '/entry.sh': '#!/bin/sh\nexec $(find_java) "$@"\n',
    };
    const paths = await started(files, ['/entry.sh'], { env: ['JAVA_HOME=/opt/jdk'] });
    assert.ok(paths.includes('/opt/jdk/bin/java'));
  });

  test('ends with scripts that run or source each other, or nest without end', async () => {
    const chain: Record<string, Content> = {};
    for (let i = 0; i < 50; i++) chain[`/s${i}`] = `#!/bin/sh\n/s${i + 1}\n. /s${i}\n`;
    const paths = await started(chain, ['/s0']);
    assert.ok(paths.includes('/s3') && !paths.includes('/s20'));
    const nested = '$('.repeat(20_000);
    assert.ok((await started({}, ['sh', '-c', nested])).includes('/bin/sh'));
    assert.ok((await started({}, ['sh', '-c', '{ ( '.repeat(20_000)])).includes('/bin/sh'));
    assert.ok(
      (await started({}, ['sh', '-c', 'eval "$X"'], { env: ['X=eval "$X" "$X"'] })).includes(
        '/bin/sh',
      ),
    );
  });

  test('reads the beginning of a script of 1 GiB only', async () => {
    const prediction = await predictionOf({ ...base, '/big.sh': { holeBytes: 2 ** 30 } }, [
      'sh',
      '/big.sh',
    ]);
    assert.ok(prediction.readBytes < 4 << 20);
    const bytes = prediction.files
      .filter(({ path }) => path === '/big.sh')
      .flatMap(({ ranges }) => ranges)
      .reduce((sum, { start, end }) => sum + end - start, 0);
    assert.ok(bytes <= 16 << 20);
  });
});
