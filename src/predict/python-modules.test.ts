/**
 * Goal: a start of Python is predicted as the files that the interpreter opens: compiled modules where there are some.
 * Method: small installations in images in memory, laid out as Debian's, as python.org's images and as a venv.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { type Content, pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const LIB = '/usr/lib/python3.11';
const SITE = '/usr/lib/python3/dist-packages';
const base: Record<string, Content> = {
  '/usr/bin/python3.11': elfBytes({ needed: ['libm.so.6'] }),
  '/bin/python3': { link: '/usr/bin/python3.11' },
  '/lib/libm.so.6': elfBytes(),
  [`${LIB}/os.py`]: 'import stat\n',
  [`${LIB}/stat.py`]: '',
  [`${LIB}/encodings/__init__.py`]: 'from . import aliases\n',
  [`${LIB}/encodings/aliases.py`]: '',
  [`${LIB}/json/__init__.py`]: 'from .decoder import JSONDecoder\n',
  [`${LIB}/json/__pycache__/__init__.cpython-311.pyc`]: 'compiled',
  [`${LIB}/json/decoder.py`]: 'import _json\n',
  [`${LIB}/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so`]: elfBytes({ needed: ['libz.so'] }),
  '/lib/libz.so': elfBytes(),
};

async function read(files: Record<string, Content>, argv: readonly string[], cwd = '/srv') {
  return pathsOf(await predictionOf({ ...base, ...files }, argv, { cwd }), 'python');
}

describe('Python', () => {
  test('reads compiled modules, extensions and their libraries, but none that are frozen', async () => {
    const paths = await read({ '/srv/app.py': 'import json, os\n' }, ['python3', 'app.py']);
    assert.deepEqual(paths, [
      `${LIB}/encodings/__init__.py`,
      `${LIB}/encodings/aliases.py`,
      '/srv/app.py',
      `${LIB}/json/__pycache__/__init__.cpython-311.pyc`,
      `${LIB}/json/decoder.py`,
      `${LIB}/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so`,
      '/lib/libz.so',
    ]);
  });

  test('is followed from an installed script to its entry point, and to mod:attr', async () => {
    const paths = await read(
      {
        '/bin/serve':
          "#!/bin/python3\nsys.exit(load_entry_point('serve==1', 'console_scripts', 'serve')())\n",
        [`${SITE}/serve-1.egg-info/entry_points.txt`]:
          '[console_scripts]\nserve = serve.run:main\n',
        [`${SITE}/serve/__init__.py`]: '',
        [`${SITE}/serve/run.py`]: 'WORKER = "serve.worker.Sync"\nOTHER = "absent.thing"\n',
        [`${SITE}/serve/worker.py`]: '',
        '/srv/app.py': 'from lib import stock\n',
        '/srv/lib/stock.py': '',
      },
      ['serve', '-b', ':80', 'app:application'],
    );
    for (const path of [
      `${SITE}/serve-1.egg-info/entry_points.txt`,
      `${SITE}/serve/run.py`,
      `${SITE}/serve/worker.py`,
      '/srv/app.py',
      '/srv/lib/stock.py',
    ])
      assert.ok(paths.includes(path), path);
  });

  test('is followed by names in the settings of a framework, and from functions of the script', async () => {
    const paths = await read(
      {
        '/srv/manage.py':
          'import os\ndef main():\n    os.environ.setdefault("SETTINGS", "shop.settings")\n    from web.run import go\n',
        '/srv/shop/__init__.py': '',
        '/srv/shop/settings.py': 'APPS = ["web.admin", "shop.cart"]\n',
        '/srv/shop/cart.py': '',
        [`${SITE}/web/__init__.py`]: '',
        [`${SITE}/web/run.py`]: 'def go():\n    import web.late\n',
        [`${SITE}/web/admin.py`]: '',
        [`${SITE}/web/late.py`]: '',
      },
      ['python3', 'manage.py', 'serve'],
    );
    for (const path of ['/srv/shop/cart.py', `${SITE}/web/run.py`, `${SITE}/web/admin.py`]) {
      assert.ok(paths.includes(path), path);
    }
    assert.ok(!paths.includes(`${SITE}/web/late.py`));
  });

  test('-m runs a package, from a venv', async () => {
    const paths = await read(
      {
        '/venv/bin/python': { link: '/usr/bin/python3.11' },
        '/venv/pyvenv.cfg': 'home = /usr/bin\n',
        '/venv/lib/python3.11/site-packages/tool/__init__.py': '',
        '/venv/lib/python3.11/site-packages/tool/__main__.py': 'from tool import core\n',
        '/venv/lib/python3.11/site-packages/tool/core.py': '',
        [`${SITE}/tool/__init__.py`]: '',
      },
      ['/venv/bin/python', '-u', '-m', 'tool'],
    );
    assert.ok(paths.includes('/venv/lib/python3.11/site-packages/tool/core.py'));
    assert.ok(!paths.includes(`${SITE}/tool/__init__.py`));
  });

  test('ends with modules that import each other, or thousands of others', async () => {
    const files: Record<string, Content> = { '/srv/app.py': 'import m0\n' };
    for (let i = 0; i < 3000; i++) files[`/srv/m${i}.py`] = `import m${i + 1}, m0, app\n`;
    const paths = await read(files, ['python3', 'app.py']);
    assert.ok(paths.length > 1000 && paths.length <= 1500);
  });
});
