/** What processes that are killed leave of nbd's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';
import { serverKills } from './server-kills.js';

const missing = await whyNot('nbd');
serverKills('nbd', missing);
daemonKills('nbd', missing);
