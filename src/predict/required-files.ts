/** Follows the files that source files require, for languages whose rules differ only in names and search paths. */
import type { ImageFile } from './image-files.js';
import type { Tier } from './prediction.js';
import type { Program } from './program.js';
import type { Finds } from './rule.js';

export interface Required {
  readonly file: ImageFile;
  readonly reason: string;
  readonly tier: Tier;
}

export interface SourceLanguage {
  readonly sourceBytesMax: number;
  readonly filesMax: number;
  /** Finds what a source file requires, in the order of its text. */
  requiredBy(file: ImageFile, text: string): Promise<readonly Required[]>;
}

/** Depth first, without recursion, in the order in which an interpreter loads them. Shared libraries are loaded, and end a path. */
export async function followRequired(
  first: readonly Required[],
  { sourceBytesMax, filesMax, requiredBy }: SourceLanguage,
  program: Program,
  finds: Finds,
): Promise<void> {
  const seen = new Set<number>();
  const open = first.toReversed();
  for (let next = open.pop(); next !== undefined && !finds.isFull; next = open.pop()) {
    const { file, reason, tier } = next;
    if (seen.has(file.inode)) continue;
    if (seen.size >= filesMax) return;
    seen.add(file.inode);
    if (/\.(?:so|node)$/.test(file.path)) {
      await finds.load(file, reason, program);
      continue;
    }
    finds.add(file, reason, { tier });
    const required = await requiredBy(file, await finds.image.text(file, sourceBytesMax));
    for (const each of required.toReversed()) {
      open.push({ ...each, tier: Math.max(each.tier, tier) as Tier });
    }
  }
}
