/** Threads of this program's own modules, from the build as from the sources. */
import { extname } from 'node:path';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * @param module - The URL of the starter's own module, import.meta.url.
 * @param name - Of the thread's, relative to it, without its extension.
 */
export function startThread(module: string, name: string, options: WorkerOptions): Worker {
  const extension = extname(module);
  const entry = new URL(`${name}${extension}`, module);
  if (extension !== '.ts') return new Worker(entry, options);
  // Node 20 has the loader that understands the sources, tsx, in the first thread only; each has to ask for it.
  const tsx = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const script = `(await import(${tsx})).register(); await import(${JSON.stringify(entry.href)});`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`), options);
}
