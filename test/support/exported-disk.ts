/** Exports a disk of this thread on an NBD server, as the daemon's threads export theirs. */
import type { ReportFailure } from '../../src/blockdev/disk-requests.js';
import { DiskConnections } from '../../src/blockdev/nbd/disk-connections.js';
import type { NbdExport, NbdServer } from '../../src/blockdev/nbd/nbd-server.js';
import { ReplyBuffers } from '../../src/blockdev/nbd/reply-buffers.js';
import { transmissionFlags } from '../../src/blockdev/nbd/transmission-flags.js';
import type { VirtualDisk } from '../../src/blockdev/virtual-disk.js';

const buffers = new ReplyBuffers();

/** @param report - Called once for every request that is answered with an error. */
export function exportDisk(
  server: NbdServer,
  name: string,
  disk: VirtualDisk,
  report: ReportFailure = () => {},
): NbdExport {
  const { label, sizeBytes } = disk;
  const connections = new DiskConnections(disk, buffers, report);
  return server.addExport(name, {
    label,
    sizeBytes,
    flags: transmissionFlags(disk),
    serve: ({ fd, rest, ended, ...options }) => {
      connections.serve(fd, options, rest).then(ended, ended);
    },
    end: () => connections.end(),
  });
}
