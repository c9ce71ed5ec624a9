/** PostgreSQL and MariaDB: the files by which a first start makes a database, settings, and data that a package made. */
import { dirname } from 'node:path';
import { filesMatching } from './glob-files.js';
import { absolutePath, nameOf, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

const CONFIG_BYTES_MAX = 256 << 10;
const CONFIGS_MAX = 100;
/** An empty database is at the beginning of its tablespaces and logs. */
const DATA_BYTES_MAX = 4 << 20;
/** System tables; larger files of that directory are data. */
const TABLE_BYTES_MAX = 64 << 10;
/** Read by initdb, in its order, from PostgreSQL's shared directory. */
const INITDB_FILES = [
  'postgresql.conf.sample',
  'pg_hba.conf.sample',
  'pg_ident.conf.sample',
  'postgres.bki',
  'timezonesets/Default',
  'system_constraints.sql',
  'system_functions.sql',
  'system_views.sql',
  'snowball_create.sql',
  'information_schema.sql',
  'sql_features.txt',
  'extension/plpgsql.control',
  'extension/plpgsql--1.0.sql',
];
const INITDB_LIBRARIES = ['dict_snowball.so', 'plpgsql.so'];
const MYSQL_CONFIGS = ['/etc/my.cnf', '/etc/mysql/my.cnf'];
const MYSQL_DATA = '/var/lib/mysql';
const MYSQL_SHARED = ['charsets/Index.xml', 'english/errmsg.sys'];

export const DATABASES: Rule = {
  name: 'database',
  async apply(program, finds) {
    const name = nameOf(program);
    if (name === 'initdb') await addInitdb(program, finds);
    else if (name === 'postgres') await addPostgres(program, finds);
    else if (name === 'mariadbd' || name === 'mysqld') await addMysql(program, finds);
  },
};

/** `/usr/lib/postgresql/15` of Debian has its shared files in `/usr/share/postgresql/15`. */
function sharedDirectories({ file }: Program): string[] {
  const prefix = dirname(dirname(file.path));
  return [prefix.replace('/lib/', '/share/'), `${prefix}/share/postgresql`, `${prefix}/share`];
}

async function addInitdb(program: Program, finds: Finds): Promise<void> {
  const { image } = finds;
  for (const name of INITDB_FILES) {
    const file = await image.firstFile(sharedDirectories(program).map((each) => `${each}/${name}`));
    if (file !== undefined) finds.add(file, 'makes a new database');
  }
  const prefix = dirname(dirname(program.file.path));
  for (const name of INITDB_LIBRARIES) {
    const file = await image.firstFile([
      `${prefix}/lib/${name}`,
      `${prefix}/lib/postgresql/${name}`,
    ]);
    if (file !== undefined) await finds.load(file, 'makes a new database', program);
  }
  await finds.start([`${prefix}/bin/postgres`], program, 'run by initdb');
}

async function addPostgres(program: Program, finds: Finds): Promise<void> {
  const name = 'timezonesets/Default';
  const file = await finds.image.firstFile(
    sharedDirectories(program).map((each) => `${each}/${name}`),
  );
  if (file !== undefined) finds.add(file, 'time zones');
}

async function addMysql(program: Program, finds: Finds): Promise<void> {
  const { image } = finds;
  let data = MYSQL_DATA;
  const open = [...MYSQL_CONFIGS];
  const seen = new Set<number>();
  for (
    let path = open.shift();
    path !== undefined && seen.size < CONFIGS_MAX;
    path = open.shift()
  ) {
    const file = await image.findFile(path);
    if (file === undefined || seen.has(file.inode)) continue;
    seen.add(file.inode);
    finds.add(file, 'settings');
    const included: string[] = [];
    for (const line of (await image.text(file, CONFIG_BYTES_MAX))
      .split('\n')
      .map((each) => each.trim())) {
      if (included.length >= CONFIGS_MAX) break;
      const [, word, place = ''] = /^!(include|includedir) +(\S+)/.exec(line) ?? [];
      if (word === 'include') included.push(absolutePath(place, dirname(file.path)));
      if (word === 'includedir') included.push(...(await filesMatching('*.cnf', place, image)));
      data = /^datadir ?= ?(\/\S+)/.exec(line)?.[1] ?? data;
    }
    open.unshift(...included);
  }
  data = program.argv.map((arg) => /^--datadir=(\/.+)$/.exec(arg)?.[1]).find(Boolean) ?? data;
  for (const name of MYSQL_SHARED) {
    const file = await image.firstFile(
      ['mysql', 'mariadb'].map((each) => `/usr/share/${each}/${name}`),
    );
    if (file !== undefined) finds.add(file, 'messages and characters');
  }
  for (const path of await filesMatching('*', data, image)) {
    const file = await image.findFile(path);
    if (file === undefined) continue;
    const end = Math.min(file.sizeBytes, DATA_BYTES_MAX);
    finds.add(file, `in ${data}`, { ranges: [{ start: 0, end }] });
  }
  for (const path of await filesMatching('mysql/*', data, image)) {
    const file = await image.findFile(path);
    if (file !== undefined && file.sizeBytes <= TABLE_BYTES_MAX)
      finds.add(file, 'system tables', { tier: 2 });
  }
}
