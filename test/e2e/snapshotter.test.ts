/**
 * Goal: obd-snapshotter meets containerd's requirements for a snapshotter, for plain layers, without obd-blockd.
 * Method: containerd's conformance suite, in TypeScript, against the real process.
 */
import { after, before, describe } from 'node:test';
import { SnapshotterProcess, unfit } from '../support/snapshotter-process.js';
import { snapshotterSuite } from '../support/snapshotter-suite.js';

describe('conformance', { skip: unfit }, () => {
  let snapshotter: SnapshotterProcess;
  before(async () => {
    snapshotter = await SnapshotterProcess.start();
  });
  after(async () => await snapshotter.stop());
  snapshotterSuite(() => snapshotter.client);
});
