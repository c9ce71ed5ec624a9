/** What daemons that are killed leave of ublk's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';

daemonKills('ublk', await whyNot('ublk'));
