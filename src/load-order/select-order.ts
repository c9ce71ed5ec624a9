/**
 * Chooses among the load orders that were found for an image, by their annotations alone: no document is fetched for it.
 *
 * The first of these that any order meets decides:
 *
 *   1. its command line is the container's
 *   2. its name is wished for
 *   3. its command line is the image's own, where the container's is not known; it has no name
 *   4. it has neither command line nor name
 *   5. the container's command line is not known, and all orders without name are of one command line
 *
 * Rules 3 to 5 are tried without predictions first: who has recorded another command line runs the image by it, more likely than by
 * its own, of which predictions are.
 *
 * An order of another command line than the container's is never taken. Among equals a recorded order comes before a list, and
 * a list before a prediction; then the digest decides, so that the order of a registry's answer does not.
 */
import { commandNamed } from './command-line.js';
import {
  COMMAND_ANNOTATION,
  KIND_ANNOTATION,
  LOAD_ORDER_ANNOTATION,
  NAME_ANNOTATION,
} from './load-order-annotations.js';
import { KINDS_BY_RANK } from './merge-orders.js';

/** Measured, or written by somebody. */
const SURE_KINDS: readonly (string | undefined)[] = ['recorded', 'list'];

export interface FoundOrder {
  /** The annotations of the artifact's manifest, as the registry lists them. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** The facts about a start that choose its order. Command lines are digests: see commandDigest(). */
export interface OrderWish {
  /** The container's command line; empty if it is not known. */
  readonly command: string;
  /** The image's Entrypoint and Cmd; empty if they are not known. */
  readonly imageCommand: string;
  /** Names to look for, the first one first: of the client's label, then of the image's annotation. */
  readonly names: readonly string[];
}

export const NO_WISH: OrderWish = { command: '', imageCommand: '', names: [] };

/** Undefined if no order fits. */
export function selectOrder<T extends FoundOrder>(
  found: readonly T[],
  { command, imageCommand, names }: OrderWish,
): T | undefined {
  const allowed = found.filter((each) => {
    return command === '' || ['', command].includes(commandOf(each));
  });
  const isOfCommand = (each: T) => command !== '' && commandOf(each) === command;
  const isUsual = (each: T) => imageCommand !== '' && commandOf(each) === imageCommand;
  const isNamed = (name: string) => (each: T) => nameOf(each) === name;
  const usual = allowed.filter((each) => nameOf(each) === '');
  const sure = usual.filter(({ annotations }) => SURE_KINDS.includes(annotations[KIND_ANNOTATION]));
  const unasked = [new Set(sure), new Set(usual)].flatMap((orders) => {
    const isOnly = command === '' && new Set([...orders].map(commandOf)).size === 1;
    const rules = [isUsual, (each: T) => commandOf(each) === '', () => isOnly];
    return rules.map((rule) => (each: T) => orders.has(each) && rule(each));
  });
  const tests = [
    ...names.map((name) => (each: T) => isOfCommand(each) && nameOf(each) === name),
    (each: T) => isOfCommand(each) && nameOf(each) === '',
    isOfCommand,
    ...names.map(isNamed),
    ...unasked,
  ];
  for (const test of tests) {
    const best = bestOf(allowed.filter(test));
    if (best !== undefined) return best;
  }
  return undefined;
}

/**
 * Under which command line and name the order of a start is published. A named start whose command line is not known leaves what
 * the earlier order of that name says.
 */
export function publishedAs(
  { command, imageCommand, names: [name = ''] }: OrderWish,
  earlier?: FoundOrder,
): { readonly command: string; readonly name: string } {
  if (command !== '') return { command, name };
  if (name === '') return { command: imageCommand, name };
  return { command: earlier === undefined ? '' : commandOf(earlier), name };
}

/**
 * The best of the orders that are of the same start, and into which its order is merged. Of several command lines under the name
 * of a start whose own is not known, one without a command line comes first.
 */
export function sameStart<T extends FoundOrder>(
  found: readonly T[],
  wish: OrderWish,
): T | undefined {
  const same = found.filter((each) => isPublishedAs(each, publishedAs(wish, each)));
  return bestOf(same.filter((each) => commandOf(each) === '')) ?? bestOf(same);
}

/** Whether an order has that command line and name, so that a newer one takes its place. */
export function isPublishedAs(
  found: FoundOrder,
  { command, name }: { readonly command: string; readonly name: string },
): boolean {
  return commandOf(found) === command && nameOf(found) === name;
}

/** Tells what this host keeps of different starts of an image apart. Empty for the usual start. */
export function variantOf({ command, imageCommand, names }: OrderWish): string {
  const other = command === imageCommand ? '' : command;
  return other === '' && names.length === 0 ? '' : JSON.stringify([other, ...names]);
}

function bestOf<T extends FoundOrder>(found: readonly T[]): T | undefined {
  return found.toSorted(byRank)[0];
}

function byRank(a: FoundOrder, b: FoundOrder): number {
  return rankOf(a) - rankOf(b) || (digestOf(a) < digestOf(b) ? -1 : 1);
}

/** Unknown kinds last. */
function rankOf({ annotations }: FoundOrder): number {
  const rank = (KINDS_BY_RANK as readonly (string | undefined)[]).indexOf(
    annotations[KIND_ANNOTATION],
  );
  return rank === -1 ? KINDS_BY_RANK.length : rank;
}

function commandOf({ annotations }: FoundOrder): string {
  return commandNamed(annotations[COMMAND_ANNOTATION]);
}

function nameOf({ annotations }: FoundOrder): string {
  return annotations[NAME_ANNOTATION] ?? '';
}

function digestOf({ annotations }: FoundOrder): string {
  return annotations[LOAD_ORDER_ANNOTATION] ?? '';
}
