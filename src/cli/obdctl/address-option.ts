/** The option of every command that calls containerd, with the names and the variable of ctr and nerdctl. */
export const addressOption = {
  alias: 'a',
  type: 'string',
  requiresArg: true,
  default: process.env['CONTAINERD_ADDRESS'] || '/run/containerd/containerd.sock',
  describe: "containerd's socket",
} as const;
