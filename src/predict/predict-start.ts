/**
 * Predicts what the entry point of an image reads when it starts, from the image alone. Runs nothing, and asks no network.
 *
 * The entry point is a program; rules say what it reads and which programs it starts, and are applied to those in turn. The
 * same image gives the same prediction: no clock, no random numbers, and bounds are counts of work and bytes.
 */
import { AUTHOR_FILES } from './author-files.js';
import { DATABASES } from './databases.js';
import { ELF_PROGRAM, loadLibrary } from './elf-program.js';
import { type ImageFile, ImageFiles } from './image-files.js';
import type { ImageTree } from './image-tree.js';
import { JVM } from './jvm.js';
import { LIBC_DATA } from './libc-data.js';
import { NODE } from './node-modules.js';
import { PERL } from './perl.js';
import { FoundFiles, type PredictedFile, type PredictionLimits, type Tier } from './prediction.js';
import { findProgram, type Program } from './program.js';
import { PYTHON } from './python-modules.js';
import { RUBY } from './ruby.js';
import type { AddOptions, Finds, Origin, Rule } from './rule.js';
import { SHEBANG } from './shebang.js';
import { SHELL } from './shell-script.js';
import type { StartCommand } from './start-command.js';
import { WEB_SERVERS } from './web-servers.js';
import { WRAPPERS } from './wrappers.js';

/** In the order in which they are applied to a program. */
const RULES: readonly Rule[] = [
  SHEBANG,
  ELF_PROGRAM,
  LIBC_DATA,
  WRAPPERS,
  SHELL,
  PYTHON,
  NODE,
  JVM,
  RUBY,
  PERL,
  WEB_SERVERS,
  DATABASES,
  AUTHOR_FILES,
];

const BYTES_MAX = 64 << 20;
/** A prediction that is most of the image gains nothing over fetching the image. */
const SHARE_OF_IMAGE_MAX = 0.25;
/** No share bounds so little: most of a small image is its one program. */
const BYTES_ALWAYS = 8 << 20;
const FILE_BYTES_MAX = 16 << 20;
const FILES_MAX = 1_500;
const DEPTH_MAX = 8;
/** Programs whose rules are applied. Entry point scripts start some twenty. */
const PROGRAMS_MAX = 200;

export interface Prediction {
  /** In the order in which to fetch them. */
  readonly files: readonly PredictedFile[];
  /** A bound on the work was reached, so files may be missing. */
  readonly isCut: boolean;
  /** Bytes of files that the rules had to read. */
  readonly readBytes: number;
}

/** @throws {ObdError} errors of reading the image. */
export async function predictStart(tree: ImageTree, command: StartCommand): Promise<Prediction> {
  const image = new ImageFiles(tree);
  const found = new FoundFiles();
  const walk = new Walk(image, found);
  const { argv, env, cwd } = command;
  await walk.start(argv, { env, cwd, depth: -1, tier: 1 }, 'entry point of the image', 'argv');
  const share = Math.floor(image.contentBytes * SHARE_OF_IMAGE_MAX);
  const limits: PredictionLimits = {
    bytesMax: Math.min(BYTES_MAX, Math.max(BYTES_ALWAYS, share)),
    fileBytesMax: FILE_BYTES_MAX,
    filesMax: FILES_MAX,
  };
  const isCut = walk.isFull;
  return { files: found.predicted(limits), isCut, readBytes: image.readBytes };
}

/** The programs of one prediction. */
class Walk {
  readonly image: ImageFiles;
  readonly found: FoundFiles;
  readonly #started = new Set<string>();
  readonly #loaded = new Set<string>();

  constructor(image: ImageFiles, found: FoundFiles) {
    this.image = image;
    this.found = found;
  }

  get isFull(): boolean {
    const isFull = this.found.isFull || this.#started.size >= PROGRAMS_MAX;
    return isFull || this.image.isExhausted;
  }

  async start(
    argv: readonly string[],
    { env, cwd, depth, tier }: Origin,
    reason: string,
    rule: string,
  ): Promise<void> {
    const [command] = argv;
    if (command === undefined || command === '' || depth >= DEPTH_MAX || this.isFull) return;
    const program = await findProgram(command, { env, cwd }, this.image);
    if (program === undefined) return;
    const key = JSON.stringify([program.path, argv, cwd, tier]);
    if (this.#started.has(key)) return;
    this.#started.add(key);
    await this.#applyAll({ ...program, argv, env, cwd, tier, depth: depth + 1 }, reason, rule);
  }

  async load(file: ImageFile, reason: string, program: Program, rule: string): Promise<void> {
    const key = `${file.inode} ${program.tier}`;
    if (this.#loaded.has(key)) return;
    this.#loaded.add(key);
    await loadLibrary(file, reason, program, new RuleFinds(this, rule, program.tier));
  }

  async #applyAll(program: Program, reason: string, rule: string): Promise<void> {
    // The first page is what the kernel reads to tell scripts from ELF files.
    const ranges = [{ start: 0, end: 1 }];
    this.found.add({ file: program.file, ranges, tier: program.tier, rule, reason });
    for (const each of RULES)
      await each.apply(program, new RuleFinds(this, each.name, program.tier));
  }
}

/** Adds to what a rule finds its name and the tier of its program. */
class RuleFinds implements Finds {
  readonly #walk: Walk;
  readonly #rule: string;
  readonly #tier: Tier;

  constructor(walk: Walk, rule: string, tier: Tier) {
    this.#walk = walk;
    this.#rule = rule;
    this.#tier = tier;
  }

  get image(): ImageFiles {
    return this.#walk.image;
  }

  get isFull(): boolean {
    return this.#walk.isFull;
  }

  add(file: ImageFile, reason: string, { tier: own = 1, ranges }: AddOptions = {}): void {
    const tier = own > this.#tier ? own : this.#tier;
    const whole = [{ start: 0, end: file.sizeBytes }];
    this.#walk.found.add({ file, ranges: ranges ?? whole, tier, rule: this.#rule, reason });
  }

  async load(file: ImageFile, reason: string, program: Program): Promise<void> {
    await this.#walk.load(file, reason, program, this.#rule);
  }

  async start(argv: readonly string[], from: Origin, reason: string): Promise<void> {
    await this.#walk.start(argv, from, reason, this.#rule);
  }
}
