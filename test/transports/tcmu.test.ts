/** What processes that are killed leave of tcmu's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';
import { serverKills } from './server-kills.js';

const missing = await whyNot('tcmu');
serverKills('tcmu', missing);
daemonKills('tcmu', missing);
