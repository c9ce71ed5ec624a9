/** Goal: the files of the JVM and of its class path. Method: a JDK's layout without content in images in memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { type Content, pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const JDK = '/opt/jdk';
const base: Record<string, Content> = {
  [`${JDK}/bin/java`]: elfBytes({ needed: ['libjli.so'], runpath: '$ORIGIN/../lib' }),
  '/bin/java': { link: `${JDK}/bin/java` },
  [`${JDK}/lib/libjli.so`]: elfBytes(),
  [`${JDK}/lib/server/libjvm.so`]: elfBytes({ textBytes: 9 << 20 }),
  [`${JDK}/lib/modules`]: { holeBytes: 130 << 20 },
  [`${JDK}/lib/server/classes.jsa`]: 'archive',
  '/app/app.jar': 'jar',
  '/app/lib/a.jar': 'jar',
  '/app/lib/b.jar': 'jar',
  '/app/other.jar': 'jar',
};

test('the JVM reads its libraries, its archive, and the first part of the modules', async () => {
  const prediction = await predictionOf(base, ['java', '-Xmx1g', '-jar', '/app/app.jar']);
  const paths = pathsOf(prediction, 'jvm');
  for (const path of ['lib/server/libjvm.so', 'lib/modules', 'lib/server/classes.jsa']) {
    assert.ok(paths.includes(`${JDK}/${path}`), path);
  }
  const jvm = prediction.files.filter(({ path }) => path.endsWith('libjvm.so'));
  assert.deepEqual(
    jvm.map(({ tier }) => tier),
    [1, 2, 3],
  );
  assert.ok(pathsOf(prediction).includes('/app/app.jar'));
  const modules = prediction.files.filter(({ path }) => path === `${JDK}/lib/modules`);
  assert.ok(modules.flatMap(({ ranges }) => ranges).every(({ end }) => end < 2 << 20));
});

test('a class path names jars and directories of jars, in options and in CLASSPATH', async () => {
  const byOption = pathsOf(
    await predictionOf(base, ['java', '-cp', '/app/lib/*:/app/app.jar', 'Main']),
    'jvm',
  );
  for (const path of ['/app/lib/a.jar', '/app/lib/b.jar', '/app/app.jar'])
    assert.ok(byOption.includes(path));
  const env = ['CLASSPATH=/app/other.jar'];
  const byVariable = pathsOf(await predictionOf(base, ['java', 'Main'], { env }), 'jvm');
  assert.ok(byVariable.includes('/app/other.jar'));
});

test('an application server reads the jars and settings below its home', async () => {
  const files = { ...base, '/srv/t/lib/catalina.jar': 'jar', '/srv/t/conf/server.xml': '<xml/>' };
  const paths = pathsOf(
    await predictionOf(files, ['java', 'Main'], { env: ['CATALINA_HOME=/srv/t'] }),
  );
  assert.ok(paths.includes('/srv/t/lib/catalina.jar') && paths.includes('/srv/t/conf/server.xml'));
});
