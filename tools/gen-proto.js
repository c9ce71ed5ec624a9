/**
 * Writes the types of src/grpc/gen from proto/. Run by `npm run gen`; the result is committed, so that neither a build
 * nor an editor needs this. The options say how messages look in TypeScript, and src/grpc/proto.ts decodes them in
 * the same way: change both.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const ROOT = dirname(import.meta.dirname);
const PROTO = join(ROOT, 'proto');
const TARGET = join(ROOT, 'src', 'grpc', 'gen');
const GENERATOR = createRequire(import.meta.url).resolve(
  '@grpc/proto-loader/build/bin/proto-loader-gen-types.js',
);
const OPTIONS = [
  ['--longs', 'Number'],
  ['--enums', 'String'],
  ['--defaults'],
  ['--oneofs'],
  ['--grpcLib', '@grpc/grpc-js'],
  ['--importFileExtension', '.js'],
  ['--includeDirs', PROTO],
  ['--outDir', TARGET],
].flat();

const protoFiles = readdirSync(PROTO, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.proto'))
  .sort();
rmSync(TARGET, { recursive: true, force: true });
execFileSync(process.execPath, [GENERATOR, ...OPTIONS, ...protoFiles], {
  cwd: PROTO,
  stdio: 'inherit',
});

for (const entry of readdirSync(TARGET, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath, entry.name);
  // The files at the top describe whole packages for loadPackageDefinition(), which src/grpc does not use.
  if (entry.parentPath === TARGET) rmSync(path);
  else writeFileSync(path, readFileSync(path, 'utf8').replaceAll(`${ROOT}/`, ''));
}
