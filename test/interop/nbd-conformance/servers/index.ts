import { type StartServer, startNbdkit, startQemuNbd, startStorageDaemon } from './others.ts';
import { startOurs } from './ours.ts';

/** By the names that `--server` takes. */
export const SERVERS: Readonly<Record<string, StartServer>> = {
  volsnap: (folder) => startOurs(folder),
  'qemu-nbd': startQemuNbd,
  'qemu-storage-daemon': startStorageDaemon,
  nbdkit: startNbdkit,
};
