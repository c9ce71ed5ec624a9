/** `obd-blockd`: the daemon that serves images as block devices. Wiring only; see src/blockd/blockd.ts. */
import type { Logger } from 'pino';
import { hideBin } from 'yargs/helpers';
import { Blockd } from '../../blockd/blockd.js';
import {
  BLOCKD_CONFIG_EXAMPLE,
  BLOCKD_CONFIG_PATH,
  type BlockdConfig,
  blockdConfig,
} from '../../blockd/blockd-config.js';
import { readConfigFile } from '../../config/config-file.js';
import { requireNode } from '../../node-version.js';
import { commandLine } from '../command-line.js';
import { configReload } from '../config-reload.js';
import { daemonLog } from '../daemon-log.js';
import { EXIT_FAILED, reportFailure } from '../failure.js';
import { daemonStop } from '../interruption.js';
import type { Reloading } from '../reloading.js';

const PROGRAM = 'obd-blockd';
/** Below systemd's stop timeout of 90 seconds. */
const STOP_MS_MAX = 30_000;

/** Runs the daemon until it is told to stop. */
export async function runBlockd(reloading: Reloading): Promise<void> {
  try {
    const { config: path } = await commandLine(PROGRAM, hideBin(process.argv))
      .usage('$0 [--config FILE]: serves lazily loaded container images as block devices')
      .option('config', { type: 'string', requiresArg: true, describe: 'Configuration, in TOML' })
      .epilogue(
        `${BLOCKD_CONFIG_PATH} is read if it exists. For example:\n\n${BLOCKD_CONFIG_EXAMPLE}`,
      )
      // Wrapped lines of the example would not be TOML.
      .wrap(null)
      .parseAsync();
    const file = {
      path: path ?? BLOCKD_CONFIG_PATH,
      mayBeMissing: path === undefined,
      schema: blockdConfig,
    };
    const config = await readConfigFile(file.path, blockdConfig, file);
    await run(config, (daemon, log) => {
      const apply = (fresh: BlockdConfig) => daemon.reload(fresh);
      reloading.answer(configReload({ ...file, config, log, apply }));
    });
  } catch (error) {
    process.exitCode = reportFailure(PROGRAM, error);
  }
}

async function run(
  config: BlockdConfig,
  onReady: (daemon: Blockd, log: Logger) => void,
): Promise<void> {
  requireNode();
  const log = daemonLog(PROGRAM, config.log_level);
  const told = daemonStop();
  const daemon = await Blockd.start(config, log, (err) => {
    log.fatal({ err }, 'worker thread died, exiting so that the next run recovers its devices');
    // exit() would wait for the call in which such a thread may hang.
    process.kill(process.pid, 'SIGKILL');
  });
  onReady(daemon, log);
  log.info({ socket: config.socket, stateDir: config.state_dir }, 'ready');
  if (!told.aborted) await new Promise((resolve) => told.addEventListener('abort', resolve));
  log.info('stopping');
  // A hanging device or disk must not block the exit for ever.
  setTimeout(() => {
    log.error({ afterMs: STOP_MS_MAX }, 'shutdown timed out, exiting anyway');
    process.exit(EXIT_FAILED);
  }, STOP_MS_MAX).unref();
  await daemon.stop();
  log.info('stopped');
  // The processes behind devices in use would keep this process running.
  process.exit();
}
