/** `--hosts-dir`, of every command that asks a registry as containerd would. */
import { HOSTS_DIRECTORY } from '../../registry/hosts-directory.js';

export const hostsDirOption = {
  type: 'string',
  requiresArg: true,
  default: HOSTS_DIRECTORY,
  describe: "containerd's directory of HOST/hosts.toml: mirrors, plain HTTP, authorities",
} as const;
