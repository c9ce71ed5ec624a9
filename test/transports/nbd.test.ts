/** What daemons that are killed leave of nbd's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';

daemonKills('nbd', await whyNot('nbd'));
