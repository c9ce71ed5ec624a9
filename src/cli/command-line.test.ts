/**
 * Goal: an invalid command line is refused as a whole, for any mistake in it, and never understood in part.
 * Method: a program with every kind of option and a command, and rows of command lines.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import { commandLine } from './command-line.js';

class HandlerError extends Error {}

async function program(args: readonly string[]) {
  return await commandLine('prog', args)
    .command('do <what>', 'do it', (command) =>
      command
        .positional('what', { type: 'string', demandOption: true })
        .option('one', { type: 'string', requiresArg: true, default: 'default' })
        .option('number', { alias: 'n', type: 'number', requiresArg: true })
        .option('flag', { type: 'boolean' })
        .option('so-many', { type: 'string', array: true, requiresArg: true, nargs: 1 }),
    )
    .command(
      'fail',
      'fails',
      () => {},
      () => {
        throw new HandlerError('by itself');
      },
    )
    .demandCommand(1, 'Name a command')
    .exitProcess(false)
    .parseAsync();
}

for (const [line, problem] of [
  ['', 'Name a command'],
  ['do', 'Too few arguments: 0 of 1'],
  ['do a b', 'Unknown argument: b'],
  ['do a --two', 'Unknown argument: two'],
  ['do a --one', '"one" has no value'],
  ['do a --one=', '"one" has no value'],
  ['do a --one b --one c', '"one" is given twice'],
  ['do a --number 1 -n 2', 'given twice'],
] as const) {
  test(`"prog ${line}" is refused: ${problem}`, async () => {
    await assert.rejects(program(line.split(' ').filter(Boolean)), (error) => {
      assert.ok(error instanceof ObdError, String(error));
      assert.equal(error.code, ErrorCodes.InvalidArgument);
      assert.ok(error.message.includes(problem), error.message);
      assert.match(error.message, /; see prog --help$/);
      return true;
    });
  });
}

test('parses every kind of option', async () => {
  const args = 'do --so-many a --flag what --so-many b -n 3 --flag'.split(' ');
  const { what, soMany, flag, number, one } = await program(args);
  assert.deepEqual(
    { what, soMany, flag, number, one },
    {
      what: 'what',
      soMany: ['a', 'b'],
      flag: true,
      number: 3,
      one: 'default',
    },
  );
});

test("rethrows a command's error unchanged", async () => {
  await assert.rejects(program(['fail']), HandlerError);
});
