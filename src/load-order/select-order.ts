/**
 * Chooses among the load orders that were found for an image, by their annotations alone: no document is fetched for it.
 *
 * The first of these that any order meets decides: its command line is the container's, its name is wished for, it has
 * neither command line nor name. An order of another command line is never taken. Among equals a recorded order
 * comes before a list, and a list before a prediction; then the digest decides, so that the order of a registry's answer does not.
 */
import { sha256Of } from '../oci/digest.js';
import {
  COMMAND_ANNOTATION,
  KIND_ANNOTATION,
  LOAD_ORDER_ANNOTATION,
  NAME_ANNOTATION,
} from './load-order-annotations.js';
import { KINDS_BY_RANK } from './merge-orders.js';

export interface FoundOrder {
  /** The annotations of the artifact's manifest, as the registry lists them. */
  readonly annotations: Readonly<Record<string, string>>;
}

export interface OrderWish {
  /** The arguments of the container's process; undefined if they are not known. */
  readonly args: readonly string[] | undefined;
  /** Names to look for, the first one first: of the container's label, then of an annotation. */
  readonly names: readonly string[];
}

/** Undefined if no order fits. */
export function selectOrder<T extends FoundOrder>(
  found: readonly T[],
  { args, names }: OrderWish,
): T | undefined {
  const own = args === undefined ? undefined : commandText(args);
  const commands = own === undefined ? [] : [own, sha256Of(Buffer.from(own))];
  const isOfCommand = ({ annotations }: T): boolean => {
    const command = annotations[COMMAND_ANNOTATION];
    return command !== undefined && commands.includes(commandText([command]));
  };
  const isDefault = ({ annotations }: T): boolean =>
    annotations[COMMAND_ANNOTATION] === undefined && annotations[NAME_ANNOTATION] === undefined;
  const tests = [
    isOfCommand,
    ...names.map((name) => (each: T) => each.annotations[NAME_ANNOTATION] === name),
    isDefault,
  ];
  for (const test of tests) {
    const [best] = found.filter(test).sort(byRank);
    if (best !== undefined) return best;
  }
  return undefined;
}

/** A command line as text that can be compared: the arguments with single spaces between all words. */
export function commandText(args: readonly string[]): string {
  return args.join(' ').trim().replace(/\s+/g, ' ');
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

function digestOf({ annotations }: FoundOrder): string {
  return annotations[LOAD_ORDER_ANNOTATION] ?? '';
}
