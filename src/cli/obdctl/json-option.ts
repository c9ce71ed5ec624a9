/** The option of every command that prints data. */
export const jsonOption = {
  type: 'boolean',
  default: false,
  describe: 'Print JSON instead of text for people',
} as const;

/** Writes a value as the command's output. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}
