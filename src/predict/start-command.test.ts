/** Goal: the command is that which container engines make of an image's config and of options. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes, hasCode } from '../errors.js';
import { startCommand } from './start-command.js';

const image = {
  config: {
    Entrypoint: ['/entry'],
    Cmd: ['serve', '-v'],
    Env: ['A=1', 'B=x=y'],
    WorkingDir: 'srv',
  },
};

test('Entrypoint and Cmd are joined; options replace them', () => {
  const argv = (options: object) => startCommand(image, options).argv;
  assert.deepEqual(argv({}), ['/entry', 'serve', '-v']);
  assert.deepEqual(argv({ args: ['other'] }), ['/entry', 'other']);
  assert.deepEqual(argv({ entrypoint: ['sh'] }), ['sh']);
  assert.deepEqual(argv({ entrypoint: ['sh'], args: ['-c', 'x'] }), ['sh', '-c', 'x']);
});

test('the environment is extended, and the working directory absolute', () => {
  const { env, cwd } = startCommand(image, { env: ['A=2', 'C='] });
  assert.deepEqual(
    [...env],
    [
      ['A', '2'],
      ['B', 'x=y'],
      ['C', ''],
    ],
  );
  assert.equal(cwd, '/srv');
  assert.equal(startCommand(image, { cwd: '/x' }).cwd, '/x');
});

test('an image without a command, or with a config of the wrong form, is refused', () => {
  const codeOf = (config: unknown) => {
    try {
      startCommand(config, {});
    } catch (error) {
      return Object.values(ErrorCodes).find((code) => hasCode(error, code));
    }
    return undefined;
  };
  assert.equal(codeOf({ config: { Cmd: null } }), ErrorCodes.InvalidArgument);
  assert.equal(codeOf({}), ErrorCodes.InvalidArgument);
  assert.equal(codeOf({ config: { Cmd: 'sh' } }), ErrorCodes.Corrupt);
});
