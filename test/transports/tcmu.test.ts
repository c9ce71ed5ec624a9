/** What daemons that are killed leave of tcmu's devices. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';

daemonKills('tcmu', await whyNot('tcmu'));
