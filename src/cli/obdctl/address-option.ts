/** The option of every command that asks containerd; with the names and the variable that ctr and nerdctl have. */
export const addressOption = {
  alias: 'a',
  type: 'string',
  requiresArg: true,
  default: process.env['CONTAINERD_ADDRESS'] || '/run/containerd/containerd.sock',
  describe: "containerd's socket",
} as const;
