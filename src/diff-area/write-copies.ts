/** Writing the data of copies to the file of a diff area. */
import { allDone } from '../all-done.js';
import { writeAll } from '../device/block-device.js';
import { assert } from '../errors.js';
import type { AreaFile } from '../store/store.js';
import { BLOCK_SIZE, type ByteOffset, offsetOfSlot, type Slot } from '../units.js';

/** `data[i]` is 16 KiB for `slots[i]`. Contiguous slots go in one vectored write. @throws DeviceError */
export async function writeCopies(
  file: AreaFile,
  slots: readonly Slot[],
  data: readonly Uint8Array[],
): Promise<void> {
  assert(slots.length === data.length, () => `${data.length} blocks for ${slots.length} slots`);
  const writes: Promise<void>[] = [];
  for (let start = 0; start < slots.length; ) {
    const first = slots[start] ?? 0;
    let end = start + 1;
    while (end < slots.length && slots[end] === first + (end - start)) end++;
    for (const piece of file.runs.pieces(offsetOfSlot(first), (end - start) * BLOCK_SIZE)) {
      const count = piece.length / BLOCK_SIZE;
      const write = writeRun(file, piece.volumeOffset, joined(data.slice(start, start + count)));
      if (write !== undefined) writes.push(write);
      start += count;
    }
  }
  if (writes.length > 0) await allDone(writes);
}

/** @returns `undefined` if it is done; a failure is always a rejection, so that writes under way are waited for */
function writeRun(
  { device }: AreaFile,
  offset: ByteOffset,
  sources: readonly Uint8Array[],
): Promise<void> | undefined {
  try {
    return device.writeNow?.(offset, sources) === true ? undefined : writeAll(device, offset, sources);
  } catch (error) {
    return Promise.reject(error);
  }
}

/** Neighbouring views of one buffer as one view: fewer vectors for the operating system. */
function joined(views: readonly Uint8Array[]): Uint8Array[] {
  const result: Uint8Array[] = [];
  for (const view of views) {
    const last = result.at(-1);
    if (
      last !== undefined &&
      last.buffer === view.buffer &&
      last.byteOffset + last.byteLength === view.byteOffset
    ) {
      result[result.length - 1] = new Uint8Array(
        last.buffer,
        last.byteOffset,
        last.byteLength + view.byteLength,
      );
    } else {
      result.push(view);
    }
  }
  return result;
}
