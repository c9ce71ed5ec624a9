/** What daemons that are killed leave of fuse's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';

daemonKills('fuse', await whyNot('fuse'));
