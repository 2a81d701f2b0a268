/**
 * Serves a plain file, without an engine, through the server of the built program: `plain-server.mjs IMAGE SOCKET`.
 * No TypeScript: what would compile it in the process would slow down what is measured.
 */
import { FileDevice } from '../../../dist/device/file-device.js';
import { DeviceExport, FixedCatalog } from '../../../dist/nbd/server/device-export.js';
import { NbdServer } from '../../../dist/nbd/server/server.js';

const [image, socket] = process.argv.slice(2);
const device = await FileDevice.open(image, { writable: true });
const server = new NbdServer(new FixedCatalog([new DeviceExport('', device)]), { onError: console.error });
await server.listen({ path: socket });
process.once('SIGTERM', async () => {
  await server.close();
  await device.close();
});
