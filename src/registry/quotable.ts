/** Text of other programs, made fit for our messages. */
const QUOTE_LENGTH_MAX = 200;

/** Text of somebody else's, fit for one line of a log or a terminal. */
export function quotable(text: string): string {
  const printable = text.replaceAll(/[^\x20-\x7e]+/g, ' ').trim();
  return printable.length > QUOTE_LENGTH_MAX
    ? `${printable.slice(0, QUOTE_LENGTH_MAX)}...`
    : printable;
}
