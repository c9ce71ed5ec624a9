/** Command lines of containers, as load orders are chosen by them: docs/formats/load-order.md, "Where it is". */
import { isDigest, sha256Of } from '../oci/digest.js';

/** A command line as text that can be compared: the arguments with single spaces between all words. */
export function commandText(args: readonly string[]): string {
  return args.join(' ').trim().replace(/\s+/g, ' ');
}

/**
 * The digest of a command line. Published load orders have only that: command lines can hold secrets.
 *
 * @returns `sha256:...`; empty for no arguments.
 */
export function commandDigest(args: readonly string[]): string {
  const text = commandText(args);
  return text === '' ? '' : sha256Of(Buffer.from(text));
}

/** As commandDigest(), of a label or an annotation: the words, or the digest itself. */
export function commandNamed(text = ''): string {
  return isDigest(text) ? text : commandDigest([text]);
}
