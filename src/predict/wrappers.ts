/** Programs that set something up and then execute the rest of their arguments. */
import { nameOf, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

interface Wrapper {
  /** Options that take the next argument as their value. */
  readonly valued: readonly string[];
  /** Arguments between the options and the command, such as a user. */
  readonly operands: number;
}

const plain: Wrapper = { valued: [], operands: 0 };
const ofUser: Wrapper = { valued: [], operands: 1 };

const WRAPPERS_BY_NAME = new Map<string, Wrapper>([
  ['env', { valued: ['-u', '-C', '--unset', '--chdir'], operands: 0 }],
  ['tini', { valued: ['-p', '-e'], operands: 0 }],
  ['tini-static', { valued: ['-p', '-e'], operands: 0 }],
  ['docker-init', { valued: ['-p', '-e'], operands: 0 }],
  ['dumb-init', { valued: ['-r', '--rewrite'], operands: 0 }],
  ['catatonit', plain],
  ['gosu', ofUser],
  ['su-exec', ofUser],
  [
    'chpst',
    {
      valued: ['-u', '-U', '-e', '-n', '-l', '-L', '-m', '-d', '-o', '-p', '-f', '-c'],
      operands: 0,
    },
  ],
  ['setpriv', plain],
  ['nice', { valued: ['-n', '--adjustment'], operands: 0 }],
  ['nohup', plain],
  ['setsid', plain],
  ['stdbuf', { valued: ['-i', '-o', '-e'], operands: 0 }],
  ['timeout', { valued: ['-s', '-k', '--signal', '--kill-after'], operands: 1 }],
  ['xargs', { valued: ['-n', '-P', '-I', '-L', '-d', '-a', '-s', '-E'], operands: 0 }],
]);
/** setpriv takes values without "=" for these. */
const SETPRIV_VALUED =
  /^--(?:re|e|r)?(?:uid|gid)$|^--(?:groups|inh-caps|ambient-caps|bounding-set|securebits|pdeathsig)$/;

export const WRAPPERS: Rule = {
  name: 'wrapper',
  async apply(program, finds) {
    const name = nameOf(program);
    if (name === 'find') await startOfFind(program, finds);
    const wrapper = WRAPPERS_BY_NAME.get(name);
    if (wrapper === undefined) return;
    const { command, env } = commandOf(name, wrapper, program);
    if (command.length > 0) await finds.start(command, { ...program, env }, `run by ${name}`);
  },
};

/** The commands of `-exec`. */
async function startOfFind(program: Program, finds: Finds): Promise<void> {
  const { argv } = program;
  for (const [at, arg] of argv.entries()) {
    if (!/^-(?:exec|execdir|ok)$/.test(arg)) continue;
    const rest = argv.slice(at + 1);
    const end = rest.findIndex((each) => each === ';' || each === '+');
    await finds.start(end === -1 ? rest : rest.slice(0, end), program, 'run by find');
  }
}

function commandOf(
  name: string,
  { valued, operands }: Wrapper,
  { argv, env }: Pick<Program, 'argv' | 'env'>,
): { command: readonly string[]; env: ReadonlyMap<string, string> } {
  const set = new Map(env);
  const args = argv.slice(1);
  let at = 0;
  for (; at < args.length; at++) {
    const arg = args[at]!;
    const assignment = /^([A-Za-z_]\w*)=(.*)$/s.exec(arg);
    if (arg === '--') {
      at++;
      break;
    }
    if (name === 'env' && assignment !== null) set.set(assignment[1]!, assignment[2]!);
    else if (name === 'env' && /^-\w*S/.test(arg)) {
      // The kernel passes all of a shebang's arguments as one.
      const own = arg.replace(/^-\w*S/, '');
      const split = own === '' ? (args[++at] ?? '') : own;
      return commandOf(
        name,
        { valued, operands },
        {
          argv: ['env', ...split.split(/\s+/).filter((word) => word !== ''), ...args.slice(at + 1)],
          env: set,
        },
      );
    } else if (!arg.startsWith('-') || arg === '-') break;
    else if (valued.includes(arg) || (name === 'setpriv' && SETPRIV_VALUED.test(arg))) at++;
  }
  return { command: args.slice(at + operands), env: set };
}
