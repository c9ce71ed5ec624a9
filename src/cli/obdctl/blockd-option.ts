/** The option of every command that calls obd-blockd. */
export const blockdOption = {
  type: 'string',
  requiresArg: true,
  default: '/run/obd-ts/blockd.sock',
  describe: "obd-blockd's socket",
} as const;
