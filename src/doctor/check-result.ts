/** Result of one of doctor's checks. */
type CheckState = 'ok' | 'warn' | 'missing' | 'info';

export interface CheckResult {
  readonly what: string;
  readonly state: CheckState;
  readonly found: string;
  /** The operator's next step; empty if there is none. */
  readonly remedy: string;
}

export function result(what: string, state: CheckState, found: string, remedy = ''): CheckResult {
  return { what, state, found, remedy: state === 'ok' ? '' : remedy };
}
