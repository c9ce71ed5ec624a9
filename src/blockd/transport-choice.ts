/**
 * Chooses the transport of a device: the configured one, or the first of TRANSPORT_NAMES that works here now. Each choice
 * checks the host again, which takes a few milliseconds, so that a module loaded later needs no restart.
 */
import {
  TRANSPORT_NAMES,
  type Transport,
  type TransportCapabilities,
  type TransportName,
} from '../blockdev/transport.js';
import type { Transports } from '../blockdev/transports.js';
import { ErrorCodes, ObdError } from '../errors.js';

export type TransportSetting = 'auto' | TransportName;

export interface TransportState {
  readonly name: TransportName;
  /** The requirement that this host does not meet; empty if nothing. */
  readonly missing: string;
  /** Whether a device that is attached now gets it. */
  readonly chosen: boolean;
}

export class TransportChoice {
  readonly #setting: TransportSetting;
  readonly #transports: Transports;

  constructor(setting: TransportSetting, transports: Transports) {
    this.#setting = setting;
    this.#transports = transports;
  }

  /** In the order of preference. */
  async states(): Promise<TransportState[]> {
    const missing = await Promise.all(
      TRANSPORT_NAMES.map(async (name) => await whatLacks(this.#transports[name])),
    );
    const setting = this.#setting;
    const first = TRANSPORT_NAMES.find((_, i) => missing[i] === '');
    const chosen = setting === 'auto' ? first : setting;
    return TRANSPORT_NAMES.map((name, i) => ({
      name,
      missing: missing[i]!,
      chosen: name === chosen,
    }));
  }

  /**
   * The transports to try, best first; never empty.
   * @param needs - What the disk needs.
   * @throws {ObdError} `Host` if no transport that may be used works here and has these capabilities.
   */
  async candidates(needs: TransportCapabilities): Promise<TransportName[]> {
    const setting = this.#setting;
    const states = await this.states();
    const allowed = states.filter(({ name }) => setting === 'auto' || setting === name);
    const reasons = allowed.map(({ name, missing }) => {
      return missing === '' ? unmetNeeds(needs, this.#transports[name].capabilities) : missing;
    });
    const usable = allowed.filter((_, i) => reasons[i] === '').map(({ name }) => name);
    if (usable.length > 0) return usable;
    const why = allowed.map(({ name }, i) => `${name} cannot be used: ${reasons[i]}`).join('; ');
    throw new ObdError(
      ErrorCodes.Host,
      `No transport for devices (transport = "${setting}"): ${why}`,
    );
  }
}

/** The needs that a transport does not meet, as a reason; empty if it meets all. */
function unmetNeeds(needs: TransportCapabilities, has: TransportCapabilities): string {
  const unmet = (['write', 'discard', 'resize'] as const).filter(
    (need) => needs[need] && !has[need],
  );
  return unmet.length === 0 ? '' : `its devices have no ${unmet.join(', no ')}`;
}

async function whatLacks(transport: Transport): Promise<string> {
  try {
    return (await transport.unavailableReason()) ?? '';
  } catch (error) {
    return `it cannot be looked at: ${error}`;
  }
}
