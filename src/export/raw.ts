/** Writes a snapshot as it is, with holes where it has zeros if the target can have them. */
import type { BlockDevice } from '../device/block-device.js';
import type { ByteSource } from '../snapshot/snapshot.js';
import type { ByteLength } from '../units.js';
import { piecesOf } from './extent-reader.js';
import { everything, zeroParts } from './zero-parts.js';
import { dataRuns, ZERO_UNIT } from './zeros.js';

export interface ExportRawOptions {
  /** Does the device read as zeros already, as a new file does? Then zeros are not written. Default: false. */
  readonly isBlank?: boolean;
  readonly signal?: AbortSignal;
  /** Bytes of the snapshot up to which the export has come, and how many it has. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

/**
 * @param device at least as large as the snapshot; it stays the caller's
 * @returns bytes written, zeros of a device that is not blank included; they are durable
 * @throws what the snapshot and the device throw, the reason of an abort
 */
export async function exportRaw(
  snapshot: ByteSource,
  device: BlockDevice,
  { isBlank = false, signal, onProgress }: ExportRawOptions = {},
): Promise<ByteLength> {
  let written = 0;
  // A device that cannot be told to be zero has zeros written like any bytes.
  const mayPass = isBlank || device.writeZeroes !== undefined;
  const whole = everything(snapshot);
  const parts = zeroParts(mayPass ? snapshot : { size: snapshot.size }, whole, ZERO_UNIT);
  for await (const pieces of piecesOf(snapshot, parts, { unit: ZERO_UNIT, skipsZeros: isBlank, signal })) {
    for (const { offset, length, bytes } of pieces) {
      if (bytes === undefined) {
        if (isBlank) continue;
        await device.writeZeroes?.(offset, length);
        written += length;
        continue;
      }
      const data = bytes.subarray(0, length);
      for (const { start, end } of isBlank ? dataRuns(data) : [{ start: 0, end: length }]) {
        await device.write(offset + start, data.subarray(start, end));
        written += end - start;
      }
    }
    const last = pieces.at(-1);
    if (last !== undefined) onProgress?.(last.offset + last.length, snapshot.size);
  }
  await device.flush();
  return written;
}
