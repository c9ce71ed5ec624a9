/** The Java virtual machine: its libraries and archives, and the jars of the class path. */
import { dirname } from 'node:path';
import { readElf } from './elf-file.js';
import { filesMatching } from './glob-files.js';
import { absolutePath, nameOf, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

const JVM_LIBRARY = 'server/libjvm';
/** Loaded by every JVM, in this order; the last ones when sockets and files are first used. */
const LIBRARIES = ['libjli', JVM_LIBRARY, 'libjava', 'libjimage', 'libzip', 'libnio', 'libnet'];
const SETTINGS = [
  'lib/jvm.cfg',
  'conf/security/java.security',
  'lib/security/default.policy',
  'conf/net.properties',
  'lib/tzdb.dat',
  'conf/logging.properties',
];
/** The modules file begins with its index, and with the classes of java.base: 80 % of the pages that a start reads. */
const MODULES_LIKELY_BYTES = 1_300_000;
/** Class data that is mapped, not read; some 15 % of its pages are touched. */
const ARCHIVE = 'server/classes.jsa';
const JARS_MAX = 200;
const CONFIG_MATCHES = ['*.xml', '*.properties', '*.policy'];
/** Containers of applications keep their jars and settings below these. */
const HOMES = ['CATALINA_HOME', 'CATALINA_BASE', 'JETTY_HOME', 'JETTY_BASE'];
const VALUED_OPTIONS = new Set([
  '-p',
  '--module-path',
  '--add-modules',
  '--add-opens',
  '--add-exports',
  '--add-reads',
]);

export const JVM: Rule = {
  name: 'jvm',
  async apply(program, finds) {
    if (nameOf(program) !== 'java') return;
    const home = dirname(dirname(program.file.path));
    const addAt = async (path: string, reason: string, options = {}) => {
      const file = await finds.image.findFile(`${home}/${path}`);
      if (file !== undefined) finds.add(file, reason, options);
    };
    for (const name of LIBRARIES) {
      const file = await finds.image.findFile(`${home}/lib/${name}.so`);
      if (file !== undefined) await finds.load(file, 'library of the JVM', program);
    }
    // Too large for a library whose code is likely, but half of it is read.
    const jvm = await finds.image.findFile(`${home}/lib/${JVM_LIBRARY}.so`);
    const elf = jvm && (await readElf(finds.image, jvm));
    if (elf) finds.add(jvm, 'code of the JVM', { tier: 2, ranges: elf.text });
    for (const path of SETTINGS) await addAt(path, 'setting of the JVM');
    await addAt('lib/modules', 'classes of the JDK, first part', {
      ranges: [{ start: 0, end: MODULES_LIKELY_BYTES }],
    });
    await addAt(`lib/${ARCHIVE}`, 'archive of loaded classes', { tier: 2 });
    await addJars(program, finds);
    await addHomes(program, finds);
  },
};

/** The jars that the arguments and CLASSPATH name. */
async function addJars({ argv, env, cwd }: Program, finds: Finds): Promise<void> {
  const paths: string[] = [];
  const named = new Map([['CLASSPATH', env.get('CLASSPATH') ?? '']]);
  for (let at = 1; at < argv.length; at++) {
    const arg = argv[at]!;
    const agent = /^-javaagent:([^=]+)/.exec(arg)?.[1];
    if (agent !== undefined) paths.push(agent);
    if (arg === '-jar') {
      paths.push(argv[at + 1] ?? '');
      // It replaces every other class path.
      named.clear();
      break;
    }
    if (arg === '-cp' || arg === '-classpath' || arg === '--class-path')
      named.set('CLASSPATH', argv[++at] ?? '');
    else if (VALUED_OPTIONS.has(arg)) at++;
    else if (arg !== '' && !arg.startsWith('-')) break;
  }
  for (const list of named.values()) paths.push(...list.split(':'));
  let jars = 0;
  for (const path of paths.filter((each) => each !== '')) {
    const found = path.endsWith('*')
      ? await filesMatching(`${path}.jar`, cwd, finds.image)
      : [absolutePath(path, cwd)];
    for (const jar of found) {
      const file = await finds.image.findFile(jar);
      if (file !== undefined && ++jars <= JARS_MAX) finds.add(file, 'class path', { tier: 2 });
    }
  }
}

async function addHomes({ env }: Program, finds: Finds): Promise<void> {
  for (const variable of HOMES) {
    const home = env.get(variable);
    if (!home?.startsWith('/')) continue;
    const patterns = [
      'bin/*.jar',
      'lib/*.jar',
      ...CONFIG_MATCHES.map((pattern) => `conf/${pattern}`),
    ];
    for (const pattern of patterns) {
      for (const path of await filesMatching(`${home}/${pattern}`, '/', finds.image)) {
        const file = await finds.image.findFile(path);
        if (file !== undefined) finds.add(file, `in ${variable}`, { tier: 2 });
      }
    }
  }
}
