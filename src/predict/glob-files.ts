/** Files of an image whose paths match a pattern with `*` and `?`, as configurations include them. */
import type { ImageFiles } from './image-files.js';
import { absolutePath } from './program.js';

/** Matches of one pattern, as a rule. */
const MATCHES_MAX = 60;
const PATTERN_CHARACTERS_MAX = 256;

/** @returns Paths in the order of their names, which is the order in which servers include them. */
export async function filesMatching(
  pattern: string,
  directory: string,
  image: ImageFiles,
  matchesMax = MATCHES_MAX,
): Promise<string[]> {
  const path = absolutePath(pattern, directory);
  if (path.length > PATTERN_CHARACTERS_MAX) return [];
  let found = [''];
  for (const step of path.split('/').slice(1)) {
    if (!/[*?]/.test(step)) found = found.map((above) => `${above}/${step}`);
    else {
      const next: string[] = [];
      for (const above of found) {
        const names = await image.list(above === '' ? '/' : above);
        const matching = names.filter((name) => !name.startsWith('.') && matches(name, step));
        next.push(...matching.map((name) => `${above}/${name}`));
        if (next.length >= matchesMax) break;
      }
      found = next.slice(0, matchesMax);
    }
  }
  return found;
}

/** Takes time of at most the product of both lengths. */
function matches(name: string, pattern: string): boolean {
  let at = 0;
  let star = -1;
  let starAt = 0;
  for (let i = 0; i < name.length; ) {
    if (pattern[at] === '*') {
      star = at++;
      starAt = i;
    } else if (pattern[at] === '?' || pattern[at] === name[i]) {
      at++;
      i++;
    } else if (star !== -1) {
      at = star + 1;
      i = ++starAt;
    } else return false;
  }
  return /^\**$/.test(pattern.slice(at));
}
