/** What processes that are killed leave of ublk's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';
import { serverKills } from './server-kills.js';

const missing = await whyNot('ublk');
serverKills('ublk', missing);
daemonKills('ublk', missing);
