/**
 * Parses `WWW-Authenticate` (RFC 9110 11.6.1): challenges separated by commas, each a scheme and parameters that are
 * separated by commas too.
 *
 *     Bearer realm="https://auth.example/token",service="registry", Basic realm="x"
 *
 * One pass from left to right. The first text that does not fit the grammar ends the parse; it returns the challenges
 * read so far.
 */
export interface Challenge {
  /** In lower case. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** Real ones have at most two challenges of four parameters. */
const CHALLENGE_LENGTH_MAX = 8192;

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const PARAMETER = new RegExp(
  `[ \\t]*(${TOKEN})[ \\t]*=[ \\t]*(?:"((?:[^"\\\\]|\\\\.)*)"|(${TOKEN}))[ \\t]*(?:,|$)`,
  'y',
);
const SCHEME = new RegExp(`[ \\t,]*(${TOKEN})(?:[ \\t]+|,|$)`, 'y');

export function parseChallenges(header: string): Challenge[] {
  const text = header.slice(0, CHALLENGE_LENGTH_MAX);
  const challenges: Challenge[] = [];
  let at = 0;
  while (at < text.length) {
    SCHEME.lastIndex = at;
    const scheme = SCHEME.exec(text);
    if (scheme === null) break;
    at = SCHEME.lastIndex;
    const parameters = new Map<string, string>();
    for (;;) {
      PARAMETER.lastIndex = at;
      const found = PARAMETER.exec(text);
      if (found === null) break;
      at = PARAMETER.lastIndex;
      const value = found[2]?.replaceAll(/\\(.)/g, '$1') ?? found[3] ?? '';
      parameters.set((found[1] ?? '').toLowerCase(), value);
    }
    challenges.push({ scheme: (scheme[1] ?? '').toLowerCase(), parameters });
  }
  return challenges;
}
