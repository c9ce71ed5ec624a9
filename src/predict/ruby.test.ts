/** Goal: what Ruby reads at a start: gem specifications and the files that are required. Method: layouts of Debian and of Ruby's images in memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { type Content, pathsOf, predictionOf } from '../../test/support/predicted-image.js';

const base: Record<string, Content> = { '/bin/ruby': elfBytes() };

test('Ruby reads all specifications, and what the script requires from gems and libraries', async () => {
  const gem = '/usr/share/rubygems-integration/all/gems/web-1/lib';
  const prediction = await predictionOf(
    {
      ...base,
      '/usr/lib/ruby/vendor_ruby/rubygems.rb': 'require "monitor"\n',
      '/usr/lib/ruby/vendor_ruby/rubygems/set.rb': '',
      '/usr/lib/ruby/3.1.0/monitor.rb': '',
      '/usr/lib/ruby/3.1.0/set.rb': '',
      '/usr/share/rubygems-integration/all/specifications/web-1.gemspec': 'spec',
      [`${gem}/web.rb`]:
        "require_relative 'web/base'\n  autoload :Late, 'web/late'\nclass A\n  def b\n    require 'web/method'\n  end\nend\n__END__\nrequire 'absent'\n",
      [`${gem}/web/base.rb`]: 'require "native"\nrequire "set"\n',
      [`${gem}/web/late.rb`]: '',
      [`${gem}/web/method.rb`]: '',
      '/usr/lib/x86_64-linux-gnu/ruby/3.1.0/native.so': elfBytes(),
      '/srv/app.rb': "require 'web'\n# require 'set'\n",
    },
    ['ruby', '-w', '/srv/app.rb'],
  );
  const paths = pathsOf(prediction, 'ruby');
  for (const path of [
    '/usr/lib/ruby/vendor_ruby/rubygems.rb',
    '/usr/lib/ruby/3.1.0/monitor.rb',
    '/usr/lib/ruby/3.1.0/set.rb',
    '/usr/share/rubygems-integration/all/specifications/web-1.gemspec',
    '/srv/app.rb',
    `${gem}/web/base.rb`,
    '/usr/lib/x86_64-linux-gnu/ruby/3.1.0/native.so',
  ])
    assert.ok(paths.includes(path), path);
  assert.ok(!paths.includes('/usr/lib/ruby/vendor_ruby/rubygems/set.rb'));
  const tiers = new Map(prediction.files.map(({ path, tier }) => [path, tier]));
  assert.equal(tiers.get(`${gem}/web.rb`), 1);
  assert.equal(tiers.get(`${gem}/web/late.rb`), 2);
  assert.equal(tiers.get(`${gem}/web/method.rb`), 2);
});

test('a script that requires thousands of files that require each other ends', async () => {
  const files = { ...base };
  for (let i = 0; i < 3000; i++)
    files[`/srv/f${i}.rb`] = `require_relative 'f${i + 1}'\nrequire_relative 'f0'\n`;
  assert.ok(pathsOf(await predictionOf(files, ['ruby', '/srv/f0.rb'])).length <= 1500);
});
