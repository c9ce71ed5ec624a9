/** The C++ programs of this benchmark, compiled when they are first needed and kept for the same source. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../programs.js';
import { cacheFolder, ROOT } from './folders.js';

/** @returns The path of the program of `bench/coldstart/NAME.cc`. @throws {ObdError} `Host` without g++. */
export async function compiled(name: 'link-shaper' | 'touched-pages'): Promise<string> {
  const source = join(ROOT, 'bench/coldstart', `${name}.cc`);
  const key = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const folder = join(cacheFolder(), 'programs');
  const program = join(folder, `${name}-${key}`);
  if (existsSync(program)) return program;
  await mkdir(folder, { recursive: true });
  const partial = `${program}.${process.pid}`;
  await run('g++', ['-std=c++20', '-O2', '-Wall', '-Wextra', '-o', partial, source]);
  await rename(partial, program);
  return program;
}
