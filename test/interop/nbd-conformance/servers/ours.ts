/** Our server, in this process. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { FileDevice } from '../../../../src/device/file-device.ts';
import { DeviceExport, FixedCatalog } from '../../../../src/nbd/server/device-export.ts';
import { NbdServer, type NbdServerOptions } from '../../../../src/nbd/server/server.ts';
import { LARGE_SIZE, type Target } from '../case.ts';
import { makeImages } from './images.ts';
import { SparseDevice } from './sparse-device.ts';

export interface OurTarget extends Target {
  /** The server behind `writable`. */
  readonly server: NbdServer;
  /** Errors that were not a client's fault. */
  readonly errors: readonly unknown[];
}

/** Serves plain files. */
export async function startOurs(folder: string, options: NbdServerOptions = {}): Promise<OurTarget> {
  const images = await makeImages(folder);
  const disk = await FileDevice.open(images.disk, { writable: true });
  const still = await FileDevice.open(images.still);
  const large = new SparseDevice(LARGE_SIZE);
  const exports = [
    new DeviceExport('disk', disk),
    new DeviceExport('still', still),
    new DeviceExport('large', large),
  ];
  const catalog = new FixedCatalog(exports);
  const psk = { identity: 'conformance', key: randomBytes(32) };
  const errors: unknown[] = [];
  const onError = (error: unknown) => errors.push(error);
  const server = new NbdServer(catalog, { onError, ...options });
  const secure = new NbdServer(catalog, {
    ...options,
    tls: { kind: 'psk', keys: new Map([[psk.identity, psk.key]]) },
  });
  const address = { path: join(folder, 'plain.sock') };
  const secureAddress = { path: join(folder, 'tls.sock') };
  await server.listen(address);
  await secure.listen(secureAddress);
  return {
    name: 'volsnap',
    version: (await import('../../../../package.json', { with: { type: 'json' } })).default.version,
    writable: { address, exportName: 'disk' },
    readOnly: { address, exportName: 'still' },
    large: { address, exportName: 'large' },
    tls: { address: secureAddress, exportName: 'still', psk },
    otherExport: 'large',
    server,
    errors,
    async stop() {
      await Promise.all([server.close(), secure.close()]);
      await Promise.all([disk.close(), still.close(), large.close()]);
    },
  };
}
