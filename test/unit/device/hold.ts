/** Child process of the ownership tests: opens a file, says so, and keeps it until killed. Arguments: path, mode. */
import { FileDevice } from '../../../src/device/file-device.js';

const [path = '', mode] = process.argv.slice(2);
const device = await FileDevice.open(path, { writable: mode === 'write' });
process.stdout.write('open\n');
// A pipe that never ends keeps the process, and with it the lock.
process.stdin.resume().on('end', () => device.close());
