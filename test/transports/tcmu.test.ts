/** Tests the tcmu devices that killed daemons leave. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';

daemonKills('tcmu', await whyNot('tcmu'));
