/** The programs as a test runs them: those of the build, or, where the test runs from the sources, those. */
import { join } from 'node:path';

const IS_BUILT = import.meta.filename.endsWith('.js');

/** What node is started with to run one. */
export function programArguments(
  name: 'obdconv' | 'obdctl' | 'obd-blockd' | 'obd-snapshotter',
): string[] {
  if (IS_BUILT) return [join(import.meta.dirname, '../../bin', `${name}.js`)];
  return ['--import', 'tsx', join(import.meta.dirname, '../../src/bin', `${name}.ts`)];
}
