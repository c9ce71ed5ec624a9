/**
 * Goal: `obdctl record` refuses command lines that contradict themselves before it does anything.
 * Method: the command with a handler that only notes its arguments.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ErrorCodes } from '../../errors.js';
import { commandLine } from '../command-line.js';
import { record } from './record.js';

const IMAGE = 'registry.example/app:1.0-obd';

async function parsed(...args: string[]): Promise<Record<string, unknown>> {
  let found: Record<string, unknown> = {};
  const handler = (given: object) => {
    found = { ...given };
  };
  await commandLine('obdctl', ['record', ...args])
    .command({ ...record, handler })
    .parseAsync();
  return found;
}

describe('obdctl record', () => {
  test('publishes the default load order of a container without network, unless told otherwise', async () => {
    const { image, publish, net, name, list, env } = await parsed(IMAGE);
    const all = { image, publish, net, name, list, env };
    const wanted = { publish: true, net: 'none', name: undefined, list: false, env: [] };
    assert.deepEqual(all, { image: IMAGE, ...wanted });
  });

  test('takes options that may be repeated before the image', async () => {
    const mount = 'type=bind,src=/a,dst=/b';
    const found = await parsed('--env', 'A=1', '--env', 'B=2', '--mount', mount, IMAGE);
    assert.deepEqual([found['env'], found['mount']], [['A=1', 'B=2'], [mount]]);
    assert.equal((await parsed('--no-publish', IMAGE))['publish'], false);
  });

  for (const [why, ...args] of [
    ['two ends', '--time', '5', '--until-output', 'ready'],
    ['two conditions', '--until-output', 'ready', '--until-http', 'http://127.0.0.1/'],
    ['a time of nothing', '--time', '0'],
    ['a time that is no number', '--time', 'soon'],
    ['a time of days', '--time', '100000'],
    ['a URL without network', '--until-http', 'http://127.0.0.1/'],
    ['a URL of another kind', '--net', 'host', '--until-http', 'file:///etc/passwd'],
    ['an unknown network', '--net', 'bridge'],
    ['a name that is too long', '--name', 'n'.repeat(300)],
    ['listing and deleting at once', '--list', '--delete'],
  ] as const) {
    test(`refuses ${why}`, async () => {
      await assert.rejects(parsed(...args, IMAGE), { code: ErrorCodes.InvalidArgument });
    });
  }
});
