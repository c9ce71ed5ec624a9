/** `--hosts-dir`, of every command that reads from a registry in the way containerd does. */
import { HOSTS_DIRECTORY } from '../../registry/hosts-directory.js';

export const hostsDirOption = {
  type: 'string',
  requiresArg: true,
  default: HOSTS_DIRECTORY,
  describe: "containerd's directory of HOST/hosts.toml: mirrors, plain HTTP, authorities",
} as const;
