/**
 * The command line rules of all programs: unknown arguments are refused; an option needs a value and is given once
 * (unless it may be repeated); each mistake is an ObdError that points to --help.
 */
import yargs, { type Argv } from 'yargs';
import { ErrorCodes, ObdError } from '../errors.js';

/** Add options and commands to it; it ends with parseAsync(), which throws the ObdError. */
export function commandLine(program: string, args: readonly string[]): Argv {
  return yargs(args)
    .scriptName(program)
    .strict()
    .check((given, options: object) => {
      // yargs' types promise the aliases; the object holds all that yargs knows of the options.
      const { array, key } = options as { array: readonly string[]; key: object };
      // Not Object.keys(argv): it has each name in camel case, too.
      for (const name of Object.keys(key)) {
        const value = given[name];
        const isTwice = Array.isArray(value) && !array.includes(name);
        if (isTwice) throw misused(program, `"${name}" is given twice`);
        if (value === '') throw misused(program, `"${name}" has no value`);
      }
      return true;
    })
    .fail((message, error: unknown) => {
      // yargs gives a message for most mistakes, and throws an error for others.
      const isOwn = error === undefined || (error instanceof Error && error.name === 'YError');
      throw isOwn ? misused(program, plainly(message)) : error;
    });
}

/** yargs' messages about missing values, in our words. */
function plainly(message: string): string {
  return message
    .replace(
      /^Not enough non-option arguments: got (\d+), need at least (\d+)$/,
      'Too few arguments: $1 of $2',
    )
    .replace(/^Not enough arguments following: (.+)$/, '"$1" has no value');
}

function misused(program: string, problem: string): ObdError {
  return new ObdError(ErrorCodes.InvalidArgument, `${problem}; see ${program} --help`);
}
