/** Goal: the modules that a Perl script uses. Method: Debian's layout of modules in images in memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const BASE = '/usr/lib/x86_64-linux-gnu/perl-base';

test('Perl reads used modules, parents, and the libraries of modules in C', async () => {
  const prediction = await predictionOf(
    {
      '/bin/perl': elfBytes(),
      '/srv/job.pl':
        '#!/bin/perl\nuse strict; use POSIX qw(strftime);\n=pod\n\nuse Unused;\n\n=cut\nuse parent -norequire, "My::Base";\n__END__\nuse Unused;\n',
      [`${BASE}/strict.pm`]: '',
      [`${BASE}/POSIX.pm`]: 'require XSLoader;\n',
      [`${BASE}/auto/POSIX/POSIX.so`]: elfBytes(),
      [`${BASE}/XSLoader.pm`]: '',
      [`${BASE}/parent.pm`]: '',
      [`${BASE}/Unused.pm`]: '',
      '/srv/lib/My/Base.pm': '',
      '/usr/share/perl5/List/Util.pm': '',
    },
    ['perl', '-I/srv/lib', '-MList::Util=sum', '/srv/job.pl'],
  );
  assert.deepEqual(pathsOf(prediction, 'perl'), [
    '/usr/share/perl5/List/Util.pm',
    '/srv/job.pl',
    `${BASE}/strict.pm`,
    `${BASE}/POSIX.pm`,
    `${BASE}/XSLoader.pm`,
    `${BASE}/auto/POSIX/POSIX.so`,
    `${BASE}/parent.pm`,
    '/srv/lib/My/Base.pm',
  ]);
});

test('names in text of any form are found in time that is linear in it', async () => {
  const begin = performance.now();
  for (const piece of [' ', ';', 'use ', 'use A', '=cut\n', '=pod\n', '{ use parent ', '; ']) {
    await predictionOf(
      { '/bin/perl': elfBytes(), '/a.pl': piece.repeat((1 << 20) / piece.length) },
      ['perl', '/a.pl'],
    );
  }
  // A quadratic one would take hours.
  assert.ok(performance.now() - begin < 30_000);
});
