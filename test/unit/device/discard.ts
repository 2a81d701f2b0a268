/** Discards the file named on its command line; a test kills it while it does. */
import { FileDevice } from '../../../src/device/file-device.js';

const device = await FileDevice.open(process.argv[2] ?? '', { writable: true });
await device.discard?.(0, device.size);
await device.close();
