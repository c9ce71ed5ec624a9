/**
 * Which transport a device gets: the configured one, or of those that work here now the first of TRANSPORT_NAMES. What is
 * missing is looked up each time, which takes a few milliseconds, so that a module loaded later needs no restart.
 */
import { TRANSPORT_NAMES, type Transport, type TransportName } from '../blockdev/transport.js';
import type { Transports } from '../blockdev/transports.js';
import { ErrorCodes, ObdError } from '../errors.js';

export type TransportSetting = 'auto' | TransportName;

export interface TransportState {
  readonly name: TransportName;
  /** What this host lacks for it; empty if nothing. */
  readonly missing: string;
  /** Whether it is what a device attached now gets. */
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
   * What to try, best first; never empty.
   * @throws {ObdError} `Host` if nothing that may be used works here.
   */
  async candidates(): Promise<TransportName[]> {
    const setting = this.#setting;
    const states = await this.states();
    const allowed = states.filter(({ name }) => setting === 'auto' || setting === name);
    const usable = allowed.filter(({ missing }) => missing === '').map(({ name }) => name);
    if (usable.length > 0) return usable;
    const why = allowed.map(({ name, missing }) => `${name} cannot be used: ${missing}`).join('; ');
    throw new ObdError(
      ErrorCodes.Host,
      `No transport for devices (transport = "${setting}"): ${why}`,
    );
  }
}

async function whatLacks(transport: Transport): Promise<string> {
  try {
    return (await transport.missing()) ?? '';
  } catch (error) {
    return `it cannot be looked at: ${error}`;
  }
}
