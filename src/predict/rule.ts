/** The interface of the predictor's rules, and of the reports that they make. A predictor for one more language is one more rule. */
import type { ImageFile, ImageFiles } from './image-files.js';
import type { ByteRange, Tier } from './prediction.js';
import type { Program } from './program.js';

export interface Rule {
  /** One word, for the report. */
  readonly name: string;
  /** Reports what `program` reads; does nothing for a program that is none of its own. */
  apply(program: Program, finds: Finds): Promise<void>;
}

/** The other end of a rule: takes what it finds, until a bound is reached. */
export interface Finds {
  readonly image: ImageFiles;
  /** Nothing more is taken. */
  readonly isFull: boolean;
  /** The program reads this file. @param options.ranges - All of it, if left out. */
  add(file: ImageFile, reason: string, options?: AddOptions): void;
  /** The program loads this shared library, or extension of an interpreter. */
  load(file: ImageFile, reason: string, program: Program): Promise<void>;
  /**
   * The program starts another one, whose rules are applied before this returns.
   *
   * @param argv - `argv[0]` is searched in PATH.
   */
  start(argv: readonly string[], from: Origin, reason: string): Promise<void>;
}

export interface AddOptions {
  readonly tier?: Tier;
  readonly ranges?: readonly ByteRange[];
}

/** Where a program is started: the environment that it inherits. */
export type Origin = Pick<Program, 'env' | 'cwd' | 'depth' | 'tier'>;
