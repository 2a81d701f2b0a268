import { MemoryFolder } from '../../../src/device/memory-folder.js';
import { blockDeviceSuite, folderSuite, resizableDeviceSuite } from './contract.js';

folderSuite('MemoryFolder', async () => new MemoryFolder());

const make = async (content: Uint8Array) => {
  const file = await new MemoryFolder().create('a');
  await file.resize(content.byteLength);
  await file.write(0, content);
  return file;
};
blockDeviceSuite('a file of MemoryFolder', { make });
resizableDeviceSuite('a file of MemoryFolder', make);
