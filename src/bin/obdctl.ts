#!/usr/bin/env node
/** `obdctl`: the operator's command. Wiring only; each subcommand is a file of src/cli/obdctl. */
import { hideBin } from 'yargs/helpers';
import { commandLine } from '../cli/command-line.js';
import { reportFailure } from '../cli/failure.js';
import { cache } from '../cli/obdctl/cache.js';
import { devices } from '../cli/obdctl/devices.js';
import { doctor } from '../cli/obdctl/doctor.js';
import { layer } from '../cli/obdctl/layer.js';
import { mount, umount } from '../cli/obdctl/mount.js';
import { predict } from '../cli/obdctl/predict.js';
import { prefetch } from '../cli/obdctl/prefetch.js';
import { record } from '../cli/obdctl/record.js';
import { rpull } from '../cli/obdctl/rpull.js';
import { surviveLostOutput } from '../cli/standard-streams.js';
import { requireNode } from '../node-version.js';

const PROGRAM = 'obdctl';

surviveLostOutput(PROGRAM);

try {
  await commandLine(PROGRAM, hideBin(process.argv))
    .usage('$0 COMMAND: lazily loaded container images on this host')
    // doctor reports an old Node among its other findings.
    .middleware(({ _: [command] }) => {
      if (command !== 'doctor') requireNode();
    })
    .command(rpull)
    .command(devices)
    .command(prefetch)
    .command(cache)
    .command(mount)
    .command(umount)
    .command(layer)
    .command(predict)
    .command(record)
    .command(doctor)
    .demandCommand(1, 'Name a command')
    .recommendCommands()
    .parseAsync();
} catch (error) {
  process.exitCode = reportFailure(PROGRAM, error);
}
