/**
 * Shell scripts: the commands that they run, and the files that they source.
 *
 * The script is not executed. Its commands are visited from the first line to the last, in all branches, since a start passes
 * most of them. Variables have the values of the environment and of the script's own assignments; an assignment that depends on
 * a condition counts only for a variable without a value. A word that stays unknown is an empty argument.
 */
import {
  type Command,
  type DoubleQuotedChild,
  forEachChild,
  parse,
  type SyntaxNode,
  type Word,
  type WordPart,
} from 'unbash';
import { filesMatching } from './glob-files.js';
import { absolutePath, nameOf, type Program } from './program.js';
import type { Finds, Rule } from './rule.js';

const SHELLS = new Set(['sh', 'bash', 'dash', 'ash', 'ksh', 'mksh']);
/** Longer scripts install something rather than start it. */
const SCRIPT_BYTES_MAX = 128 << 10;
/** Scripts sourced by scripts, and texts of `eval`. */
const NESTING_MAX = 8;
/** Nodes of syntax of one program, those of sourced files and of loops included. Tomcat's script has 4,400. */
const NODES_MAX = 30_000;
/** Characters that are parsed for one program: its script, sourced files and texts of `eval`. */
const TEXT_CHARACTERS_MAX = 1 << 20;
/** Arguments of one command, in characters. */
const ARGUMENT_CHARACTERS_MAX = 64 << 10;
/** Rounds of a `for` loop over files. */
const ROUNDS_MAX = 16;
const WORD_CHARACTERS_MAX = 4096;
/** Positional parameters: those that the script got, and those that `set --` may make of them. */
const PARAMETERS_MAX = 3;
/** Commands of the shell itself, which start no program. */
const BUILTINS = new Set(
  ': [ alias bg break continue dirs echo exit false fg getopts hash jobs kill let mapfile popd printf pushd pwd read return shift shopt test times trap true type ulimit umask unalias unset wait'.split(
    ' ',
  ),
);
/** Names of the environment that lead to a program which a script starts by a variable. */
const HOME_PROGRAMS = [
  ['JAVA_HOME', 'bin/java'],
  ['JRE_HOME', 'bin/java'],
  ['VIRTUAL_ENV', 'bin/python'],
] as const;

export const SHELL: Rule = {
  name: 'shell',
  async apply(program, finds) {
    const name = nameOf(program);
    // `busybox sh`
    const isApplet = name === 'busybox' && SHELLS.has(program.argv[1] ?? '');
    if (!SHELLS.has(name) && !isApplet) return;
    const { text, path, parameters } = await scriptOf(program.argv.slice(isApplet ? 2 : 1));
    const script = new Script(program, finds, [path ?? name, ...parameters]);
    if (text !== undefined) await script.run(text);
    else if (path !== undefined) await script.source(path, 'script of the shell');
    await script.followHomes();
  },
};

/** Splits a shell's arguments into the text of `-c` or the path of a script, and its parameters. */
async function scriptOf(args: readonly string[]) {
  const isOption = (arg: string) => /^[-+][a-zA-Z-]/.test(arg);
  let at = 0;
  let isText = false;
  while (at < args.length && isOption(args[at]!)) {
    const option = args[at++]!;
    if (/^-[a-zA-Z]*c/.test(option)) isText = true;
    if (/^[-+][a-zA-Z]*o$/.test(option)) at++;
    if (option === '--') break;
  }
  const first = args[at];
  if (isText) return { text: first, path: args[at + 1], parameters: args.slice(at + 2) };
  return { text: undefined, path: first, parameters: args.slice(at + 1) };
}

/** Where a command is in the script. */
interface Place {
  /** It may be skipped at run time. */
  readonly isConditional: boolean;
  readonly nesting: number;
}

class Script {
  readonly #program: Program;
  readonly #finds: Finds;
  readonly #variables: Map<string, string>;
  /** Each begins with `$0`. */
  readonly #parameters: (readonly string[])[];
  readonly #functions = new Set<string>();
  #cwd: string;
  #nodes = 0;
  #textLeft = TEXT_CHARACTERS_MAX;
  #hasUnknownCommand = false;

  constructor(program: Program, finds: Finds, parameters: readonly string[]) {
    this.#program = program;
    this.#finds = finds;
    this.#variables = new Map(program.env);
    this.#variables.set('PWD', program.cwd);
    this.#parameters = [parameters];
    this.#cwd = program.cwd;
  }

  async run(text: string, place: Place = { isConditional: false, nesting: 0 }): Promise<void> {
    const read = text.slice(0, Math.min(SCRIPT_BYTES_MAX, this.#textLeft));
    this.#textLeft -= read.length;
    await this.#visit(parse(read), place);
  }

  async source(path: string, reason: string, nesting = 0): Promise<void> {
    const file = await this.#finds.image.findFile(absolutePath(path, this.#cwd));
    if (file === undefined || nesting >= NESTING_MAX) return;
    this.#finds.add(file, reason);
    const text = await this.#finds.image.text(file, SCRIPT_BYTES_MAX);
    await this.run(text, { isConditional: false, nesting });
  }

  /** For a command that stayed unknown, the programs that variables of the environment lead to. */
  async followHomes(): Promise<void> {
    if (!this.#hasUnknownCommand) return;
    for (const [variable, path] of HOME_PROGRAMS) {
      const home = this.#variables.get(variable);
      if (home) await this.#start([`${home}/${path}`], `a command, by ${variable}`);
    }
  }

  async #visit(node: SyntaxNode, place: Place): Promise<void> {
    if (++this.#nodes > NODES_MAX || this.#finds.isFull) return;
    const inside = { ...place, isConditional: true };
    switch (node.type) {
      case 'Command':
        await this.#children(node, place);
        await this.#command(node, place);
        return;
      case 'Function':
        this.#functions.add(node.name.value);
        await this.#children(node, inside);
        return;
      case 'For':
        await this.#loop(node.name.value, node.wordlist ?? [], node.body, inside);
        return;
      case 'If':
      case 'While':
      case 'AndOr':
      case 'Case':
        await this.#children(node, place, inside);
        return;
      default:
        await this.#children(node, place);
    }
  }

  /** @param rest - Of all children but the first, which is the condition. */
  async #children(node: SyntaxNode, place: Place, rest = place): Promise<void> {
    const children: SyntaxNode[] = [];
    forEachChild(node, (child) => {
      children.push(child);
    });
    for (const [i, child] of children.entries()) await this.#visit(child, i === 0 ? place : rest);
  }

  async #loop(name: string, words: readonly Word[], body: SyntaxNode, place: Place) {
    const values: string[] = [];
    for (const word of words) {
      for (const text of this.#expand(word)) {
        if (/[*?]/.test(text))
          values.push(...(await filesMatching(text, this.#cwd, this.#finds.image)));
        else values.push(text);
      }
    }
    for (const value of values.slice(0, ROUNDS_MAX)) {
      this.#variables.set(name, value);
      await this.#visit(body, place);
    }
    if (values.length === 0) await this.#visit(body, place);
  }

  async #command(command: Command, place: Place): Promise<void> {
    const own = new Map(this.#variables);
    for (const each of command.prefix) {
      if (each.type !== 'Assignment' || each.value.type !== 'Word') continue;
      const value = this.#expand(each.value).join(' ');
      if (command.name === undefined) this.#assign(each.name, value, each.append === true, place);
      else own.set(each.name, value);
    }
    if (command.name === undefined) return;
    const [name, ...more] = this.#expand(command.name);
    const args: string[] = [];
    let left = ARGUMENT_CHARACTERS_MAX;
    for (const arg of command.args) {
      if (left < 0) break;
      const before = args.length;
      if (arg.type === 'Word') args.push(...this.#expand(arg));
      else if (arg.value.type === 'Word') {
        const value = this.#expand(arg.value).join(' ');
        args.push(`${arg.name}=${value}`);
      }
      for (const added of args.slice(before)) left -= added.length + 1;
    }
    if (isAllParameters(command.name)) {
      for (const parameters of this.#parameters) {
        await this.#call(parameters.slice(1), own, { ...place, isConditional: false });
      }
    } else if (name === 'exec' && isAllParameters(firstOperand(command))) {
      for (const parameters of this.#parameters) {
        const rest = args.slice(this.#parameters[0]!.length - 1);
        await this.#call([...parameters.slice(1), ...rest], own, {
          ...place,
          isConditional: false,
        });
      }
    } else if (name === undefined || name === '') this.#hasUnknownCommand = true;
    else await this.#call([name, ...more, ...args], own, place);
  }

  async #call(argv: readonly string[], env: ReadonlyMap<string, string>, place: Place) {
    const [name = '', ...args] = argv;
    const [first = ''] = args;
    switch (name) {
      case 'exec':
      case 'command':
      case 'builtin': {
        // A script ends in one of its `exec`, so a condition around it makes it no less certain.
        const isCertain = name === 'exec';
        const at = args.findIndex((arg) => !arg.startsWith('-'));
        const here = isCertain ? { ...place, isConditional: false } : place;
        if (at !== -1) await this.#call(args.slice(at), env, here);
        return;
      }
      case '.':
      case 'source':
        await this.source(first, `sourced by ${this.#parameters[0]![0]}`, place.nesting + 1);
        return;
      case 'eval':
        if (place.nesting >= NESTING_MAX) return;
        await this.run(args.join(' '), { ...place, nesting: place.nesting + 1 });
        return;
      case 'export':
      case 'readonly':
      case 'local':
      case 'declare':
      case 'typeset':
        for (const arg of args) {
          const [, variable, value = ''] = /^(\w+)=(.*)$/s.exec(arg) ?? [];
          if (variable !== undefined) this.#assign(variable, value, false, place);
        }
        return;
      case 'cd':
        if (first.startsWith('/')) this.#cwd = first;
        return;
      case 'set':
        this.#setParameters(args);
        return;
      default:
        if (name === '') this.#hasUnknownCommand = true;
        if (name === '' || BUILTINS.has(name) || this.#functions.has(name)) return;
        await this.#start(argv, `command of ${this.#parameters[0]![0]}`, env, place);
    }
  }

  async #start(
    argv: readonly string[],
    reason: string,
    env: ReadonlyMap<string, string> = this.#variables,
    { isConditional }: Pick<Place, 'isConditional'> = { isConditional: false },
  ): Promise<void> {
    const { depth, tier } = this.#program;
    const from = { env, cwd: this.#cwd, depth, tier: isConditional ? (2 as const) : tier };
    await this.#finds.start(await this.#found(argv), from, reason);
  }

  /**
   * A path that a script made of the output of other programs is wrong here: `"$JRE_HOME"/bin/java`, where the script has asked
   * `which` for the home. The program of that name in PATH is meant.
   */
  async #found(argv: readonly string[]): Promise<readonly string[]> {
    const [command = '', ...args] = argv;
    const isThere = async () =>
      (await this.#finds.image.findFile(command, this.#cwd)) !== undefined;
    if (!command.includes('/') || (await isThere())) return argv;
    return [command.slice(command.lastIndexOf('/') + 1), ...args];
  }

  #assign(name: string, value: string, appends: boolean, { isConditional }: Place): void {
    const old = this.#variables.get(name) ?? '';
    const now = appends ? old + value : value;
    // `X="$X:more"` keeps the old value; it is no other one.
    const extendsOld = old !== '' && now.includes(old);
    if (isConditional && old !== '' && !extendsOld) return;
    if (now.length <= WORD_CHARACTERS_MAX) this.#variables.set(name, now);
  }

  #setParameters(args: readonly string[]): void {
    if (args[0] !== '--' || this.#parameters.length >= PARAMETERS_MAX) return;
    this.#parameters.push([this.#parameters[0]![0] ?? '', ...args.slice(1)]);
  }

  /** The words that a word becomes. Unquoted ones are split at blanks. */
  #expand(word: Word): string[] {
    const { parts } = word;
    if (parts === undefined) return [word.value];
    if (isAllParameters(word)) return [...this.#parameters[0]!.slice(1)];
    const text = parts
      .map((part) => this.#part(part))
      .join('')
      .slice(0, WORD_CHARACTERS_MAX);
    const isQuoted = parts.some(
      ({ type }) => type !== 'SimpleExpansion' && type !== 'ParameterExpansion',
    );
    if (isQuoted) return [text];
    const words = text.split(/\s+/).filter((each) => each !== '');
    return words.length === 0 ? [''] : words;
  }

  #part(part: WordPart | DoubleQuotedChild): string {
    switch (part.type) {
      case 'Literal':
      case 'SingleQuoted':
      case 'AnsiCQuoted':
        return part.value;
      case 'DoubleQuoted':
      case 'LocaleString':
        return part.parts.map((each) => this.#part(each)).join('');
      case 'SimpleExpansion':
        return this.#variable(part.text.slice(1));
      case 'ParameterExpansion': {
        const value = this.#variable(part.parameter);
        if (part.operation?.type !== 'Default') return value;
        const { operator, operand } = part.operation;
        const other = () => this.#expand(operand).join(' ');
        if (operator === '+' || operator === ':+') return value === '' ? '' : other();
        return value === '' ? other() : value;
      }
      case 'CommandExpansion':
        return this.#output(part.text);
      case 'Glob':
        return part.text;
      default:
        return '';
    }
  }

  #variable(name: string): string {
    if (name === '@' || name === '*') return this.#parameters[0]!.slice(1).join(' ');
    if (/^\d+$/.test(name)) return this.#parameters[0]![Number(name)] ?? '';
    return this.#variables.get(name) ?? '';
  }

  /** The output of the few commands by which scripts find their own directory. */
  #output(text: string): string {
    if (/\bdirname\b|\bBASH_SOURCE\b/.test(text)) {
      const path = absolutePath(this.#parameters[0]![0] ?? '', this.#cwd);
      return path.slice(0, Math.max(1, path.lastIndexOf('/')));
    }
    return /^\$\(\s*pwd\s*\)$/.test(text) ? this.#cwd : '';
  }
}

/** `"$@"`, `$@` or `$*`. */
function isAllParameters(word: Word | undefined): boolean {
  return word !== undefined && /^"?\$\{?[@*]\}?"?$/.test(word.text);
}

function firstOperand({ args }: Command): Word | undefined {
  return args.find((arg) => arg.type === 'Word' && !arg.text.startsWith('-')) as Word | undefined;
}
