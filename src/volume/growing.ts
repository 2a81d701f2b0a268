/** Making a volume longer. */
import { checkWhole } from '../arguments.js';
import type { BlockDevice, ResizableDevice } from '../device/block-device.js';
import { InvalidArgumentError, UnsupportedError } from '../errors.js';
import type { ByteLength } from '../units.js';
import type { Engine } from './engine.js';

const isResizable = (device: BlockDevice): device is ResizableDevice => 'resize' in device;

/** See `Volume.grow`. While no snapshot is being taken: it would have two sizes. */
export async function growVolume({ device, store }: Engine, size: ByteLength): Promise<void> {
  checkWhole('size', size);
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
      `${device.name} has a fixed size; make it longer with the tools of its driver`,
    );
  if (size > device.size) await device.resize(size);
  // The size on record must never be one that a power cut takes back.
  await device.flush();
  await store.control.setProtectedSize(device.size);
}
