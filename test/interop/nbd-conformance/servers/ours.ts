/** Our server, in this process: volumes with snapshots, as `volsnap serve` serves them. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import manifest from '../../../../package.json' with { type: 'json' };
import { FileDevice } from '../../../../src/device/file-device.ts';
import { MemoryFolder } from '../../../../src/device/memory-folder.ts';
import { DeviceError } from '../../../../src/errors.ts';
import { NbdServer, type NbdServerOptions } from '../../../../src/nbd/server/server.ts';
import { VolumeExports } from '../../../../src/serve/volume-exports.ts';
import { DirectoryStore } from '../../../../src/store/directory-store.ts';
import { Volume } from '../../../../src/volume/volume.ts';
import { LARGE_SIZE, type Target } from '../case.ts';
import { makeImages } from './images.ts';
import { SparseDevice } from './sparse-device.ts';

export interface OurTarget extends Target {
  /** The server behind all places but `tls`. */
  readonly server: NbdServer;
  /** Errors that were not a client's fault. */
  readonly errors: readonly unknown[];
}

/** Two volumes, of which the first has a snapshot that keeps the known content. */
export async function startOurs(folder: string, options: NbdServerOptions = {}): Promise<OurTarget> {
  const images = await makeImages(folder);
  const disk = await open(await FileDevice.open(images.disk, { writable: true }));
  const large = await open(new SparseDevice(LARGE_SIZE));
  const snapshot = await disk.createSnapshot({ label: 'as it was' });
  const catalog = new VolumeExports([
    { volume: disk, name: 'disk' },
    { volume: large, name: 'large' },
  ]);
  const psk = { identity: 'conformance', key: randomBytes(32) };
  const errors: unknown[] = [];
  const onError = (error: unknown) => {
    // A client that fails at TLS is told of as well.
    if (!(error instanceof DeviceError && error.message.startsWith('TLS failed'))) errors.push(error);
  };
  const server = new NbdServer(catalog, { onError, ...options });
  const tls = { kind: 'psk', keys: new Map([[psk.identity, psk.key]]) } as const;
  const secure = new NbdServer(catalog, { onError, ...options, tls });
  const address = { path: join(folder, 'plain.sock') };
  const secureAddress = { path: join(folder, 'tls.sock') };
  await server.listen(address);
  await secure.listen(secureAddress);
  const still = `disk/snapshot/${snapshot.id}`;
  return {
    name: 'volsnap',
    version: manifest.version,
    writable: { address, exportName: 'disk/live' },
    readOnly: { address, exportName: still },
    large: { address, exportName: 'large/live' },
    tls: { address: secureAddress, exportName: still, psk },
    otherExport: still,
    server,
    errors,
    async stop() {
      await Promise.all([server.close(), secure.close()]);
      await Promise.all([disk.close(), large.close()]);
    },
  };
}

/** The write mode is that of `serve`. */
async function open(device: FileDevice | SparseDevice): Promise<Volume> {
  const store = new DirectoryStore(new MemoryFolder());
  await Volume.initialize(device, { store });
  return Volume.open(device, { store, writeMode: 'writeback' });
}
