/** Scripts whose first line names their interpreter: execve(2), "Interpreter scripts". */
import type { Rule } from './rule.js';

/** The kernel reads no more. */
const FIRST_LINE_BYTES_MAX = 256;

export const SHEBANG: Rule = {
  name: 'shebang',
  async apply(program, finds) {
    const head = await finds.image.text(program.file, FIRST_LINE_BYTES_MAX);
    const [, interpreter, option] = /^#![ \t]*([^\s]+)[ \t]*([^\n]*)/.exec(head) ?? [];
    if (interpreter === undefined) return;
    finds.add(program.file, `script, run by ${interpreter}`);
    const options = option === undefined || option.trim() === '' ? [] : [option.trim()];
    const argv = [interpreter, ...options, program.path, ...program.argv.slice(1)];
    await finds.start(argv, program, `interpreter of ${program.path}`);
  },
};
