/** nginx, Apache and PHP: the files that the main configuration includes, and the modules that it loads. */
import { dirname } from 'node:path';
import { filesMatching } from './glob-files.js';
import { absolutePath, nameOf, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

const CONFIG_BYTES_MAX = 256 << 10;
const CONFIGS_MAX = 200;
const MODULES_MAX = 200;
/** Pages of this size and less are shown first. */
const INDEX_BYTES_MAX = 256 << 10;
const INDEX_NAMES = ['index.html', 'index.htm', 'index.php', 'index.nginx-debian.html'];

interface Server {
  /** The main file, the first that exists; an option of the command line may name another one. */
  readonly configs: readonly string[];
  readonly option: string;
  readonly include: RegExp;
  /** Names a module in its last group. */
  readonly module: RegExp;
  readonly moduleRoots: readonly string[];
  readonly root: RegExp;
  /** Other files that it names. */
  readonly file: RegExp;
}

const NGINX: Server = {
  configs: [
    '/etc/nginx/nginx.conf',
    '/usr/local/nginx/conf/nginx.conf',
    '/usr/local/openresty/nginx/conf/nginx.conf',
  ],
  option: '-c',
  include: /^include\s+([^;\s]+)/,
  module: /^load_module\s+([^;\s]+)/,
  moduleRoots: ['/usr/share/nginx', '/etc/nginx', '/usr/lib/nginx', '/usr/local/nginx'],
  root: /^root\s+([^;\s]+)/,
  file: /^(?:ssl_certificate|ssl_certificate_key|ssl_dhparam|auth_basic_user_file)\s+([^;\s]+)/,
};

const APACHE: Server = {
  configs: [
    '/etc/apache2/apache2.conf',
    '/usr/local/apache2/conf/httpd.conf',
    '/etc/httpd/conf/httpd.conf',
  ],
  option: '-f',
  include: /^Include(?:Optional)?\s+"?([^\s"]+)/i,
  module: /^LoadModule\s+\S+\s+"?([^\s"]+)/i,
  moduleRoots: ['/etc/apache2', '/usr/local/apache2', '/etc/httpd'],
  root: /^DocumentRoot\s+"?([^\s"]+)/i,
  file: /^(?:TypesConfig|MimeMagicFile|SSLCertificate(?:Key)?File|PHPIniDir)\s+"?([^\s"]+)/i,
};

export const WEB_SERVERS: Rule = {
  name: 'config',
  async apply(program, finds) {
    const name = nameOf(program);
    if (name === 'nginx' || name === 'openresty') await follow(NGINX, program, finds);
    else if (name === 'apache2' || name === 'httpd') await follow(APACHE, program, finds);
    else if (/^php(?:-fpm)?\d?(?:\.\d)?$/.test(name)) await addPhp(program, finds);
  },
};

async function follow(server: Server, program: Program, finds: Finds): Promise<void> {
  const { image } = finds;
  const { argv, cwd } = program;
  const option = argv.indexOf(server.option);
  const named = option === -1 ? undefined : argv[option + 1];
  const main = await image.firstFile(
    named === undefined ? server.configs : [absolutePath(named, cwd)],
  );
  if (main === undefined) return;
  const base = dirname(main.path);
  const open = [main.path];
  const seen = new Set<number>();
  const roots = new Set<string>();
  let modules = 0;
  for (
    let path = open.shift();
    path !== undefined && seen.size < CONFIGS_MAX;
    path = open.shift()
  ) {
    const file = await image.findFile(path);
    if (file === undefined || seen.has(file.inode)) continue;
    seen.add(file.inode);
    finds.add(file, path === main.path ? 'main configuration' : 'included configuration');
    const included: string[] = [];
    for (const line of (await image.text(file, CONFIG_BYTES_MAX)).split('\n')) {
      const text = line.trim();
      const [, pattern] = server.include.exec(text) ?? [];
      if (pattern !== undefined && included.length < CONFIGS_MAX) {
        included.push(...(await filesMatching(pattern, base, image)));
      }
      const [, module] = server.module.exec(text) ?? [];
      if (module !== undefined && ++modules <= MODULES_MAX)
        await loadModule(module, server, program, finds);
      const [, root] = server.root.exec(text) ?? [];
      if (root !== undefined) roots.add(root);
      const [, other] = server.file.exec(text) ?? [];
      const otherFile = other && (await image.findFile(absolutePath(other, base)));
      if (otherFile) finds.add(otherFile, `named by ${path}`);
    }
    open.unshift(...included);
  }
  for (const root of roots) {
    const paths = INDEX_NAMES.map((name) => `${absolutePath(root, base)}/${name}`);
    const index = await image.firstFile(paths);
    if (index !== undefined && index.sizeBytes <= INDEX_BYTES_MAX)
      finds.add(index, `first page of ${root}`);
  }
}

async function loadModule(
  module: string,
  server: Server,
  program: Program,
  finds: Finds,
): Promise<void> {
  const paths = server.moduleRoots.map((root) => absolutePath(module, root));
  const file = await finds.image.firstFile(paths);
  if (file === undefined) return;
  await finds.load(file, `module ${module}`, program);
  const php = /\/libphp\d?(?:\.\d)?\.so$/.test(file.path);
  if (php) await addPhp(program, finds, 'apache2');
}

/** php.ini and the extensions of a SAPI: in /etc/php/VERSION/SAPI of Debian, in /usr/local/etc/php of PHP's own images. */
async function addPhp(
  program: Program,
  finds: Finds,
  sapi = nameOf(program).includes('fpm') ? 'fpm' : 'cli',
) {
  const { image } = finds;
  const directories = [
    ...(await filesMatching(`/etc/php/*/${sapi}`, '/', image)),
    '/usr/local/etc/php',
  ];
  const extensions = [
    ...(await filesMatching('/usr/lib/php/2*', '/', image)),
    ...(await filesMatching('/usr/local/lib/php/extensions/*', '/', image)),
  ];
  for (const directory of directories) {
    const inis = [
      `${directory}/php.ini`,
      ...(await filesMatching('conf.d/*.ini', directory, image)),
    ];
    if (sapi === 'fpm')
      inis.push(
        ...(await filesMatching('php-fpm.conf', directory, image)),
        ...(await filesMatching('pool.d/*.conf', directory, image)),
      );
    for (const ini of inis) {
      const file = await image.findFile(ini);
      if (file === undefined) continue;
      finds.add(file, 'configuration of PHP');
      const text = await image.text(file, CONFIG_BYTES_MAX);
      for (const [, name = ''] of text.matchAll(/^(?:zend_)?extension ?= ?"?([\w./-]{1,200})/gm)) {
        const names = extensions.flatMap((each) => [`${each}/${name}`, `${each}/${name}.so`]);
        const extension = await image.firstFile(name.startsWith('/') ? [name] : names);
        if (extension !== undefined)
          await finds.load(extension, `extension ${name} of PHP`, program);
      }
    }
  }
}
