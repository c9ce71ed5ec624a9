#!/usr/bin/env node
/** `obdconv`: turns an OCI image into an overlaybd image. Wiring only; the command is src/cli/obdconv/obdconv.ts. */
import { hideBin } from 'yargs/helpers';
import { obdconv } from '../cli/obdconv/obdconv.js';
import { surviveLostOutput } from '../cli/standard-streams.js';

surviveLostOutput('obdconv');

process.exitCode = await obdconv(hideBin(process.argv));
