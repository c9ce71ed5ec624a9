/** A table for people: each column is as wide as its widest cell. */

export interface Column {
  readonly title: string;
  /** Numbers are aligned to the right. */
  readonly right?: boolean;
}

/** @returns One line per row, the header first; no trailing blanks. */
export function textTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string {
  const table = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, i) => Math.max(...table.map((row) => (row[i] ?? '').length)));
  const lines = table.map((row) =>
    columns.map(({ right }, i) => pad(row[i] ?? '', widths[i]!, right === true)).join('  '),
  );
  return lines.map((line) => `${line.trimEnd()}\n`).join('');
}

function pad(text: string, width: number, right: boolean): string {
  return right ? text.padStart(width) : text.padEnd(width);
}
