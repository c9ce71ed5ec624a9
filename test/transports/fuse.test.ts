/** Tests the fuse devices that killed daemons leave. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';

daemonKills('fuse', await whyNot('fuse'));
