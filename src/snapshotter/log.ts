/** The part of pino's logger that this room uses: fields first, then one sentence for people. */
export interface Log {
  /** For one who looks for a fault: steps, checks and decisions. The fields are made even if the level is off. */
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
