/**
 * Starts whose reads were recorded: the files that were opened, and the pages of them that were read without read-ahead.
 *
 *     NAME/config.json    Entrypoint, Cmd, Env and WorkingDir of the image
 *     NAME/opened.tsv     path, size, how, layer, pages, pages with read-ahead, numbers of the pages: "0-3,7"
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { vectorPath } from '../support/vectors.js';

export const PAGE_BYTES = 4096;

export interface RecordedFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly pages: ReadonlySet<number>;
  /** How many pages are read with the kernel's usual read-ahead. */
  readonly readAheadPages: number;
}

export interface RecordedStart {
  /** In the form of an OCI image config. */
  readonly config: { readonly config: unknown };
  readonly files: readonly RecordedFile[];
}

/** The names of all recorded starts. */
export function recordedNames(): string[] {
  const folder = vectorPath('prediction');
  if (!existsSync(folder)) return [];
  return readdirSync(folder).filter((name) =>
    existsSync(vectorPath(`prediction/${name}/opened.tsv`)),
  );
}

export function recordedStart(name: string): RecordedStart {
  const read = (file: string) => readFileSync(vectorPath(`prediction/${name}/${file}`), 'utf8');
  const rows = read('opened.tsv').trimEnd().split('\n').slice(1);
  const files = rows.map((row) => {
    const [path = '', size = '', , , , ahead = '', pages = ''] = row.split('\t');
    return {
      path,
      sizeBytes: Number(size),
      pages: pagesOf(pages),
      readAheadPages: Number(ahead),
    };
  });
  return { config: { config: JSON.parse(read('config.json')) }, files };
}

function pagesOf(list: string): Set<number> {
  const pages = new Set<number>();
  for (const part of list.split(',').filter((text) => text !== '')) {
    const [first = 0, last = first] = part.split('-').map(Number);
    for (let page = first; page <= last; page++) pages.add(page);
  }
  return pages;
}
