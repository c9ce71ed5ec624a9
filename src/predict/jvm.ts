/** The Java virtual machine: its libraries and archives, and the jars of the class path. */
import { dirname } from 'node:path';
import { readElf } from './elf-file.js';
import { filesMatching } from './glob-files.js';
import { classPathOf } from './jar-class-path.js';
import { absolutePath, nameOf, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

const JVM_LIBRARY = 'server/libjvm';
/** Loaded by every JVM, in this order; the last ones when sockets and files are first used. */
const LIBRARIES = [
  'libjli',
  JVM_LIBRARY,
  'libjava',
  'libjimage',
  'libzip',
  'libnio',
  'libnet',
  'libextnet',
];
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
/** Read by containers of applications: their settings, and the first page. */
const HOME_FILES = [
  'conf/*.xml',
  'conf/*.properties',
  'webapps/*/META-INF/context.xml',
  'webapps/*/WEB-INF/web.xml',
  'webapps/ROOT/index.*',
];
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
    const jars = new Jars(finds);
    await addJars(program, jars);
    await addHomes(program, finds, jars);
  },
};

/** The jars that the arguments and CLASSPATH name, and those that the jars name. */
async function addJars({ argv, env, cwd }: Program, jars: Jars): Promise<void> {
  let list = env.get('CLASSPATH') ?? '';
  for (let at = 1; at < argv.length; at++) {
    const arg = argv[at]!;
    const agent = /^-javaagent:([^=]+)/.exec(arg)?.[1];
    if (agent !== undefined) await jars.add(absolutePath(agent, cwd), 'agent');
    if (arg === '-jar') {
      // It replaces every other class path.
      list = argv[at + 1] ?? '';
      break;
    }
    if (arg === '-cp' || arg === '-classpath' || arg === '--class-path') list = argv[++at] ?? '';
    else if (VALUED_OPTIONS.has(arg)) at++;
    else if (arg !== '' && !arg.startsWith('-')) break;
  }
  for (const path of list.split(':').filter((each) => each !== '')) {
    if (path.endsWith('*')) await jars.addMatching(`${path}.jar`, cwd, 'class path');
    else await jars.add(absolutePath(path, cwd), 'class path');
  }
}

async function addHomes({ env }: Program, finds: Finds, jars: Jars): Promise<void> {
  for (const variable of HOMES) {
    const home = env.get(variable);
    if (!home?.startsWith('/')) continue;
    await jars.addMatching('bin/*.jar', home, `in ${variable}`);
    await jars.addMatching('lib/*.jar', home, `in ${variable}`);
    for (const pattern of HOME_FILES) {
      for (const path of await filesMatching(pattern, home, finds.image)) {
        const file = await finds.image.findFile(path);
        if (file !== undefined) finds.add(file, `in ${variable}`, { tier: 2 });
      }
    }
  }
}

class Jars {
  readonly #finds: Finds;
  readonly #seen = new Set<number>();

  constructor(finds: Finds) {
    this.#finds = finds;
  }

  async addMatching(pattern: string, directory: string, reason: string): Promise<void> {
    for (const path of await filesMatching(pattern, directory, this.#finds.image)) {
      await this.add(path, reason);
    }
  }

  /** Adds a jar, and those of its manifest. */
  async add(first: string, reason: string): Promise<void> {
    const open = [{ path: first, reason }];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      const { path } = next;
      const file = await this.#finds.image.findFile(path);
      if (file === undefined || this.#seen.has(file.inode) || this.#seen.size >= JARS_MAX) continue;
      this.#seen.add(file.inode);
      this.#finds.add(file, next.reason, { tier: 2 });
      for (const name of await classPathOf(this.#finds.image, file)) {
        // A link may be named or its target, whose directory is another one.
        for (const from of [path, file.path]) {
          open.push({ path: absolutePath(name, dirname(from)), reason: `class path of ${path}` });
        }
      }
    }
  }
}
