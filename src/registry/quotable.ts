const QUOTE_LENGTH_MAX = 200;

/** Foreign text as one printable line of at most QUOTE_LENGTH_MAX characters, for a log or a terminal. */
export function quotable(text: string): string {
  const printable = text.replaceAll(/[^\x20-\x7e]+/g, ' ').trim();
  return printable.length > QUOTE_LENGTH_MAX
    ? `${printable.slice(0, QUOTE_LENGTH_MAX)}...`
    : printable;
}
