/** A start that reads other files than the workload's, as an image has that is used for two things. */
import type { Reference } from './reference.js';

export interface StartedCommand {
  readonly command: readonly string[];
  /** All that it prints. */
  readonly output: string;
}

/** Has documentation and translations in every image: more than starts of them touch. */
const FOLDER = '/usr/share';
const READ_OTHERS = `export LC_ALL=C
find ${FOLDER} -xdev -type f | sort | grep -vxF "$1" | xargs -d '\\n' cat | head -c "$2" >/dev/null
echo ready`;

/** Reads files that the workload's start does not touch, as many bytes as that. */
export function otherStart({ files, touchedBytes }: Reference): StartedCommand {
  const touched = files.filter((file) => file.startsWith(`${FOLDER}/`));
  const known = [...touched, 'none'].join('\n');
  return {
    command: ['sh', '-c', READ_OTHERS, 'other-start', known, `${touchedBytes}`],
    output: 'ready\n',
  };
}
