/** Files of /etc and the C library's own that programs read when they start. Small, so that a miss costs little. */
import { readElf } from './elf-file.js';
import { nameOf } from './program.js';
import type { Rule } from './rule.js';

/** Read by nearly every server: users, names, addresses. */
const BY_ALL = [
  '/etc/nsswitch.conf',
  '/etc/passwd',
  '/etc/group',
  '/etc/localtime',
  '/etc/gai.conf',
  '/etc/host.conf',
];
/** Programs that set the locale whatever the environment says. */
const LOCALIZED = /^(?:python|perl|ruby)/;
const LOCALE_VARIABLES = ['LC_ALL', 'LC_CTYPE', 'LANG'] as const;

export const LIBC_DATA: Rule = {
  name: 'libc-data',
  async apply(program, finds) {
    const { image } = finds;
    const elf = await readElf(image, program.file);
    if (elf?.interpreter === undefined) return;
    const add = async (path: string, reason: string) => {
      const file = await image.findFile(path);
      if (file !== undefined) finds.add(file, reason);
    };
    await add('/etc/ld.so.cache', 'dynamic linker');
    await add('/etc/ld.so.preload', 'dynamic linker');
    for (const path of BY_ALL) await add(path, 'C library');
    const locale = LOCALE_VARIABLES.map((name) => program.env.get(name)).find(Boolean);
    if (locale === undefined && !LOCALIZED.test(nameOf(program))) return;
    for (const name of localeDirectories(locale ?? 'C.utf8')) {
      await add(`/usr/lib/locale/${name}/LC_CTYPE`, 'locale');
    }
    if (elf.triplet !== undefined) {
      await add(`/usr/lib/${elf.triplet}/gconv/gconv-modules.cache`, 'locale');
    }
  },
};

/** glibc normalizes the codeset: `C.UTF-8` is in `C.utf8`. */
function localeDirectories(locale: string): string[] {
  const [name = '', codeset = ''] = locale.split('.', 2);
  const language = /^[\w@-]{1,64}$/.test(name) ? name : 'C';
  const plain = codeset.toLowerCase().replace(/[^a-z0-9]/g, '');
  return language === 'C' || language === 'POSIX' ? ['C.utf8'] : [`${language}.${plain}`, 'C.utf8'];
}
