/** What processes that are killed leave of fuse's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';
import { serverKills } from './server-kills.js';

const missing = await whyNot('fuse');
serverKills('fuse', missing);
daemonKills('fuse', missing);
