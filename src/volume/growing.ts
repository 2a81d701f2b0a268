/** Making a volume longer. */
import { checkWhole } from '../arguments.js';
import { isResizable } from '../device/block-device.js';
import { InvalidArgumentError, RevertInProgressError, UnsupportedError } from '../errors.js';
import type { ByteLength } from '../units.js';
import type { Engine } from './engine.js';

/**
 * See `Volume.grow`. While no snapshot is being taken: it would have two sizes.
 *
 * The size to come is on record before the device changes, and that it has it afterwards: so a volume of either size is
 * known as this one after a crash, and of any other size as one that somebody else has changed.
 */
export async function growVolume({ device, store, chain }: Engine, size: ByteLength): Promise<void> {
  checkWhole('size', size);
  if (chain.keeping.from !== undefined) {
    throw new RevertInProgressError(
      `the volume is being put back to snapshot ${chain.keeping.from.id}; make it longer when that is over`,
    );
  }
  if (size < device.size) {
    throw new InvalidArgumentError(
      `the volume has ${device.size} bytes and cannot be cut to ${size}: its snapshots need what is there`,
    );
  }
  if (store.layout === 'in-volume') {
    throw new UnsupportedError(
      'the store lies right behind the volume, which can become no longer; use a directory store on a longer copy of it',
    );
  }
  if (!isResizable(device))
    throw new UnsupportedError(
      `${device.name} has a fixed size; close the volume, make it longer with the tools of its driver, and open it with the volume's change accepted (keep)`,
    );
  if (size === device.size) return;
  if (device.size !== store.control.start.extension.protectedSize) {
    // What a growth that failed has left; else there would be three sizes that it may have after a crash.
    await device.flush();
    await store.control.setProtectedSize(device.size);
  }
  await store.control.announceGrowth(size);
  await device.resize(size);
  await device.flush();
  await store.control.setProtectedSize(device.size);
}
