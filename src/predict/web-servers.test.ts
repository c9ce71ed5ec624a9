/** Goal: configuration is followed from the main file. Method: configurations of nginx, Apache and PHP in images in memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { pathsOf, predictionOf } from '../../test/support/predicted-image.js';

test('nginx reads what its configuration includes, its modules and its first page', async () => {
  const prediction = await predictionOf(
    {
      '/bin/nginx': elfBytes(),
      '/etc/nginx/nginx.conf':
        'load_module modules/a.so;\nhttp {\n  include mime.types;\n  include conf.d/*.conf;\n}\n',
      '/etc/nginx/mime.types': '',
      '/etc/nginx/conf.d/b.conf': 'server {\n  root /srv/www;\n  ssl_certificate cert.pem;\n}\n',
      '/etc/nginx/conf.d/c.conf.off': '',
      '/etc/nginx/cert.pem': '',
      '/usr/share/nginx/modules/a.so': elfBytes(),
      '/srv/www/index.html': 'page',
    },
    ['nginx', '-g', 'daemon off;'],
  );
  assert.deepEqual(pathsOf(prediction, 'config').sort(), [
    '/etc/nginx/cert.pem',
    '/etc/nginx/conf.d/b.conf',
    '/etc/nginx/mime.types',
    '/etc/nginx/nginx.conf',
    '/srv/www/index.html',
    '/usr/share/nginx/modules/a.so',
  ]);
});

test('Apache reads its modules, and PHP in it the extensions of its own configuration', async () => {
  const prediction = await predictionOf(
    {
      '/bin/apache2': elfBytes(),
      '/etc/apache2/apache2.conf': 'IncludeOptional mods-enabled/*.load\n# Include absent\n',
      '/etc/apache2/mods-available/php.load':
        'LoadModule php_module /usr/lib/apache2/modules/libphp8.2.so\n',
      '/etc/apache2/mods-enabled/php.load': { link: '../mods-available/php.load' },
      '/usr/lib/apache2/modules/libphp8.2.so': elfBytes(),
      '/etc/php/8.2/apache2/php.ini': '; extension=absent\n',
      '/etc/php/8.2/apache2/conf.d/20-xml.ini': 'extension=xml.so\n',
      '/etc/php/8.2/cli/conf.d/20-cli.ini': 'extension=cli.so\n',
      '/usr/lib/php/20220829/xml.so': elfBytes(),
      '/usr/lib/php/20220829/cli.so': elfBytes(),
    },
    ['apache2', '-DFOREGROUND'],
  );
  const paths = pathsOf(prediction, 'config');
  for (const path of [
    '/etc/apache2/mods-available/php.load',
    '/usr/lib/apache2/modules/libphp8.2.so',
    '/etc/php/8.2/apache2/conf.d/20-xml.ini',
    '/usr/lib/php/20220829/xml.so',
  ])
    assert.ok(paths.includes(path), path);
  assert.ok(!paths.includes('/usr/lib/php/20220829/cli.so'));
});

test('a configuration that includes itself ends', async () => {
  const files: Record<string, string | Uint8Array> = { '/bin/nginx': elfBytes() };
  files['/etc/nginx/nginx.conf'] = 'include nginx.conf;\ninclude */*;\ninclude /etc/nginx/d/*;\n';
  for (let i = 0; i < 500; i++) files[`/etc/nginx/d/${i}`] = 'include d/*;\n';
  const paths = pathsOf(await predictionOf(files, ['nginx']), 'config');
  assert.ok(paths.length <= 200);
});
