/** The option of every command that asks obd-blockd. */
export const blockdOption = {
  type: 'string',
  default: '/run/obd-ts/blockd.sock',
  describe: "obd-blockd's socket",
} as const;
