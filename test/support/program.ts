/** The paths of the programs for tests: the build's, or, if the test runs from the sources, the sources'. */
import { join } from 'node:path';

const IS_BUILT = import.meta.filename.endsWith('.js');

/** Options of node to run one. */
export function programArguments(
  name: 'obdconv' | 'obdctl' | 'obd-blockd' | 'obd-snapshotter',
): string[] {
  if (IS_BUILT) return [join(import.meta.dirname, '../../bin', `${name}.js`)];
  return ['--import', 'tsx', join(import.meta.dirname, '../../src/bin', `${name}.ts`)];
}
