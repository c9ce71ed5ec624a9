#!/usr/bin/env node
/** `obd-snapshotter`: wiring only; see src/cli/obd-snapshotter/snapshotter-run.ts. */
import { Reloading } from '../cli/reloading.js';

// Loaded first: SIGHUP may come at once.
const reloading = new Reloading();
const { runSnapshotter } = await import('../cli/obd-snapshotter/snapshotter-run.js');
await runSnapshotter(reloading);
