/** Makes the cache image that docs/cache-image.md takes apart, and prints the parts of it that hold something. */
import { CacheImage, MemoryDevice } from 'volsnap';

const device = new MemoryDevice(0);
await CacheImage.create(device, { size: 1024 * 1024, id: '00112233-4455-4677-8899-aabbccddeeff' });
const image = await CacheImage.open(device);
await image.setModificationId('11111111-2222-4333-8444-555555555555');
await image.write(1024 * 1024, new Uint8Array(4096).fill(0xaa)); // block 2048, 8 blocks
await image.write(65_536, new Uint8Array(512).fill(0xbb)); // block 128, 1 block
await image.close();

for (let at = 0; at < device.size; at += 16) {
  const bytes = device.bytes.subarray(at, at + 16);
  const isData = bytes.every((byte) => byte === 0xaa || byte === 0xbb);
  if (bytes.every((byte) => byte === 0) || isData) continue;
  const digits = Buffer.from(bytes).toString('hex').replaceAll(/../g, '$& ');
  console.log(`${at.toString(16).padStart(6, '0')}  ${digits.trim()}`);
}
