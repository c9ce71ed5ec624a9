/** The constant names that a JavaScript file requires and imports. Found by shape, not by a parser: work is linear in the text. */

const REQUIRED = /\b(require(?:\.resolve)?|import) ?\( ?(["'`])([^"'`\n]{1,256})\2/g;
const IMPORTED = /\b(from|import) ?(["'])([^"'\n]{1,256})\2/g;
const NAMES_MAX = 500;

export interface RequiredName {
  readonly name: string;
  /** Packages may export another file to `import` than to `require()`. */
  readonly isImport: boolean;
}

/** In the order of the text. */
export function requiredNames(text: string): RequiredName[] {
  const found: { at: number; required: RequiredName }[] = [];
  for (const pattern of [REQUIRED, IMPORTED]) {
    for (const { index, 1: word = '', 3: name = '' } of text.matchAll(pattern)) {
      const isImport = !word.startsWith('require');
      if (found.length < NAMES_MAX) found.push({ at: index, required: { name, isImport } });
    }
  }
  return found.sort((a, b) => a.at - b.at).map(({ required }) => required);
}
