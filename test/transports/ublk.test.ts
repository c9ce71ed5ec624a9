/** Tests the ublk devices that killed daemons leave. */
import { whyNot } from '../support/kernel-transports.js';
import { daemonKills } from './daemon-kills.js';

daemonKills('ublk', await whyNot('ublk'));
