/** Quotes foreign text in messages: what quotable() returns never breaks a line or moves a cursor. */
const QUOTE_LENGTH_MAX = 200;

/** Makes one line of printable ASCII, of about QUOTE_LENGTH_MAX characters at most. */
export function quotable(text: string): string {
  const printable = text.replaceAll(/[^\x20-\x7e]+/g, ' ').trim();
  return printable.length > QUOTE_LENGTH_MAX
    ? `${printable.slice(0, QUOTE_LENGTH_MAX)}...`
    : printable;
}
