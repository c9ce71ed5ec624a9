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
/** Programs that set the locale even without a variable for it. */
const LOCALIZED = /^(?:python|perl|ruby|postgres|initdb|mariadbd|mysqld)/;
/** Programs that set every category, and not only that of characters. */
const SETS_ALL = /^(?:perl|ruby|postgres|initdb|mariadbd|mysqld)/;
const CATEGORIES =
  'LC_IDENTIFICATION LC_MEASUREMENT LC_TELEPHONE LC_ADDRESS LC_NAME LC_PAPER LC_MESSAGES/SYS_LC_MESSAGES LC_MONETARY LC_COLLATE LC_TIME LC_NUMERIC'.split(
    ' ',
  );
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
    const categories = SETS_ALL.test(nameOf(program)) || locale !== undefined ? CATEGORIES : [];
    for (const name of localeDirectories(locale ?? 'C.utf8')) {
      for (const each of ['LC_CTYPE', ...categories]) {
        await add(`/usr/lib/locale/${name}/${each}`, 'locale');
      }
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
