/** What one of doctor's checks found. */
type CheckState = 'ok' | 'warn' | 'missing' | 'info';

export interface CheckResult {
  readonly what: string;
  readonly state: CheckState;
  readonly found: string;
  /** What to do about it; empty where there is nothing to do. */
  readonly remedy: string;
}

export function result(what: string, state: CheckState, found: string, remedy = ''): CheckResult {
  return { what, state, found, remedy: state === 'ok' ? '' : remedy };
}
