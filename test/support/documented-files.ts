/**
 * Extracts the configuration files that the documents tell an operator to write: each block of TOML, with the path of a
 * file in the paragraph before it. Blocks for one file are joined.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const DOCUMENTS = ['install.md', 'snapshotter.md'];

/**
 * @param root - Root folder of the repository.
 * @param major - containerd's major version: sections for another one are left out.
 * @returns Contents by path.
 */
export function documentedFiles(root: string, major: '1' | '2'): Map<string, string> {
  const files = new Map<string, string>();
  for (const document of DOCUMENTS) {
    const lines = readFileSync(join(root, 'docs', document), 'utf8').split('\n');
    let section = '';
    let path: string | undefined;
    for (let i = 0; i < lines.length; i++) {
      const line = lines[i] ?? '';
      if (line.startsWith('#')) section = line;
      path = /`(\/etc\/[^`]+\.toml)`/.exec(line)?.[1] ?? path;
      if (line !== '```toml') continue;
      const end = lines.indexOf('```', i);
      assert.ok(path !== undefined && end > i, `${document}:${i + 1}: which file is this?`);
      const other = /containerd ([12])\b/.exec(section)?.[1] ?? major;
      const text = lines.slice(i + 1, end).join('\n');
      if (other === major) files.set(path, `${files.get(path) ?? ''}${text}\n`);
      i = end;
    }
  }
  return files;
}
