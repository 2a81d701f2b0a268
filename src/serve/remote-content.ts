/** Bytes of a volume that another process serves, and of its snapshots, which are named by their store ids. */
import { allDone } from '../all-done.js';
import { asTarget, checkRange, lengthOf } from '../arguments.js';
import type { AllocationExtent } from '../device/allocation.js';
import { DeviceError } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import {
  decodeExtents,
  Method,
  type ReadParams,
  type SnapshotParams,
  type WriteParams,
} from './control-protocol.js';
import type { Answer, RequestOptions } from './rpc/client.js';
import { TRANSFER_MAX } from './rpc/server.js';

type Request = (method: string, params: unknown, options?: RequestOptions) => Promise<Answer>;

export class RemoteContent {
  readonly #request: Request;

  constructor(request: Request) {
    this.#request = request;
  }

  /** As `Volume.allocation`. @param snapshot `undefined`: the volume; `size` its bytes, here and below */
  async *zeros(
    snapshot: string | undefined,
    size: ByteLength,
    offset: ByteOffset,
    length: ByteLength,
  ): AsyncGenerator<AllocationExtent> {
    checkRange(offset, length, size);
    const end = offset + length;
    let at = offset;
    while (at < end) {
      const params: ReadParams = { snapshot, offset: at, length: end - at };
      const { value, bytes }: Answer = await this.#request(Method.zeros, params);
      for (const zeros of decodeExtents(bytes)) {
        if (zeros.offset > at) yield { length: zeros.offset - at, zero: false };
        yield { length: zeros.length, zero: true };
        at = zeros.offset + zeros.length;
      }
      const answered = (value as { readonly next?: number }).next ?? end;
      if (answered > at) yield { length: answered - at, zero: false };
      at = answered;
    }
  }

  /** As `Volume.read`. */
  async read(
    snapshot: string | undefined,
    size: ByteLength,
    offset: ByteOffset,
    target: ByteLength | Uint8Array,
  ): Promise<Uint8Array> {
    checkRange(offset, lengthOf(target), size);
    const buffer = asTarget(target);
    const parts: Promise<unknown>[] = [];
    for (let done = 0; done < buffer.byteLength; done += TRANSFER_MAX) {
      const part = buffer.subarray(done, done + TRANSFER_MAX);
      parts.push(this.#readPart({ snapshot, offset: offset + done, length: part.byteLength }, part));
    }
    await allDone(parts);
    return buffer;
  }

  async #readPart(params: ReadParams, target: Uint8Array): Promise<void> {
    const { bytes } = await this.#request(Method.read, params, { target });
    if (bytes.byteLength !== target.byteLength) {
      throw new DeviceError(`${bytes.byteLength} bytes came of ${target.byteLength} that were asked for`);
    }
    if (bytes !== target) target.set(bytes);
  }

  /** As `Volume.write`. */
  async write(
    snapshot: string | undefined,
    size: ByteLength,
    offset: ByteOffset,
    source: Uint8Array,
  ): Promise<void> {
    checkRange(offset, source.byteLength, size);
    const parts: Promise<unknown>[] = [];
    for (let done = 0; done < source.byteLength; done += TRANSFER_MAX) {
      const bytes = source.subarray(done, done + TRANSFER_MAX);
      const params: WriteParams = { snapshot, offset: offset + done };
      parts.push(this.#request(Method.write, params, { bytes }));
    }
    await allDone(parts);
  }

  /** As `Volume.flush`. */
  async flush(snapshot: string | undefined): Promise<void> {
    const params: SnapshotParams = { snapshot };
    await this.#request(Method.flush, params);
  }
}
