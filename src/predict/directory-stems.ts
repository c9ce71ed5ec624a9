/** An index of directories that are searched one after the other: a name that none of them has costs no look-up. */
import type { ImageFiles } from './image-files.js';

/** The names in a directory up to their first dot: `json` for `json.py`, `json.cpython-311.so` and the directory `json`. */
function stemsIn(directory: string, image: ImageFiles): Promise<ReadonlySet<string>> {
  return image.once(`stems ${directory}`, async () => {
    const names = await image.list(directory);
    return new Set(names.map((name) => name.split('.', 1)[0]!));
  });
}

/** The directories that may have `name`, which can be a path such as `json/decoder`. */
export async function directoriesWith(
  name: string,
  directories: readonly string[],
  image: ImageFiles,
): Promise<string[]> {
  const stem = /^[^/.]*/.exec(name)![0];
  const found: string[] = [];
  for (const directory of directories) {
    if ((await stemsIn(directory, image)).has(stem)) found.push(directory);
  }
  return found;
}
