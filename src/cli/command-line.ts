/**
 * What the command lines of all programs here have in common: nothing unknown is passed over, an option has a value and
 * has it once (unless it says that it may be repeated), and what is wrong is an ObdError that points to --help.
 */
import yargs, { type Argv } from 'yargs';
import { ErrorCodes, ObdError } from '../errors.js';

/** Where options and commands are added; ends with parseAsync(), which throws the ObdError. */
export function commandLine(program: string, args: readonly string[]): Argv {
  return yargs(args)
    .scriptName(program)
    .strict()
    .check((given, options: object) => {
      // Not the aliases that its types speak of, but all that is known of the options.
      const { array, key } = options as { array: readonly string[]; key: object };
      // Not all that is given: there each name stands in camel case, too.
      for (const name of Object.keys(key)) {
        const value = given[name];
        const isTwice = Array.isArray(value) && !array.includes(name);
        if (isTwice) throw misused(program, `"${name}" is given twice`);
        if (value === '') throw misused(program, `"${name}" has no value`);
      }
      return true;
    })
    .fail((message, error: unknown) => {
      // yargs has words for what it finds wrong, and an error of its own for some of it.
      const isOwn = error === undefined || (error instanceof Error && error.name === 'YError');
      throw isOwn ? misused(program, message) : error;
    });
}

function misused(program: string, problem: string): ObdError {
  return new ObdError(ErrorCodes.InvalidArgument, `${problem}; see ${program} --help`);
}
