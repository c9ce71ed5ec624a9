/** Goal: what the first start of a database reads besides its programs. Method: layouts of Debian's packages in images in memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { pathsOf, predictionOf } from '../../test/support/predicted-image.js';

test('initdb reads its samples, scripts and libraries, and starts postgres', async () => {
  const prediction = await predictionOf(
    {
      '/usr/lib/postgresql/15/bin/initdb': elfBytes(),
      '/usr/lib/postgresql/15/bin/postgres': elfBytes(),
      '/usr/lib/postgresql/15/lib/plpgsql.so': elfBytes(),
      '/usr/share/postgresql/15/postgres.bki': 'bki',
      '/usr/share/postgresql/15/timezonesets/Default': 'zones',
      '/usr/share/postgresql/15/unused.sql': 'x',
    },
    ['/usr/lib/postgresql/15/bin/initdb', '-D', '/data'],
  );
  assert.deepEqual(pathsOf(prediction, 'database').sort(), [
    '/usr/lib/postgresql/15/bin/postgres',
    '/usr/lib/postgresql/15/lib/plpgsql.so',
    '/usr/share/postgresql/15/postgres.bki',
    '/usr/share/postgresql/15/timezonesets/Default',
  ]);
});

test('mariadbd reads its settings, and data where they say', async () => {
  const prediction = await predictionOf(
    {
      '/bin/mariadbd': elfBytes(),
      '/etc/mysql/mariadb.cnf':
        '[mysqld]\n!includedir /etc/mysql/conf.d/\n!include /etc/mysql/mariadb.cnf\n',
      '/etc/mysql/my.cnf': { link: 'mariadb.cnf' },
      '/etc/mysql/conf.d/own.cnf': '[mysqld]\ndatadir = /srv/db\n',
      '/etc/mysql/conf.d/own.off': '',
      '/srv/db/ibdata1': 'data',
      '/srv/db/mysql/db.MAI': 'table',
      '/srv/db/shop/orders.ibd': 'orders',
      '/var/lib/mysql/ibdata1': 'other',
    },
    ['mariadbd'],
  );
  assert.deepEqual(pathsOf(prediction, 'database'), [
    '/etc/mysql/mariadb.cnf',
    '/etc/mysql/conf.d/own.cnf',
    '/srv/db/ibdata1',
    '/srv/db/mysql/db.MAI',
  ]);
});
