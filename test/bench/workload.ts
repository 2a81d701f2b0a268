/** The shapes of load that benchmarks put on anything with `read`, `write` and `flush`. */
import { SeededRandom } from '../../src/testing/index.js';

/** What a load needs of its target. */
export interface Target {
  read(offset: number, buffer: Uint8Array): Promise<unknown>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  flush(): Promise<void>;
}

export interface Load {
  readonly name: string;
  readonly kind: 'read' | 'write';
  /** Bytes of one request. */
  readonly request: number;
  readonly order: 'sequential' | 'random';
  /** Requests in flight. */
  readonly depth: number;
}

const MEBIBYTE = 1024 * 1024;

/** Every request of the load once over `size` bytes, then a flush; returns MiB a second. */
export async function run(load: Load, target: Target, size: number): Promise<number> {
  const count = Math.floor(size / load.request);
  const order = Array.from({ length: count }, (_, index) => index);
  if (load.order === 'random') new SeededRandom('order').shuffle(order);
  let next = 0;
  const client = async (): Promise<void> => {
    const buffer = new Uint8Array(load.request).fill(1 + (next % 250));
    for (let index = order[next++]; index !== undefined; index = order[next++]) {
      if (load.kind === 'write') await target.write(index * load.request, buffer);
      else await target.read(index * load.request, buffer);
    }
  };
  const started = performance.now();
  await Promise.all(Array.from({ length: load.depth }, client));
  if (load.kind === 'write') await target.flush();
  return size / MEBIBYTE / ((performance.now() - started) / 1000);
}

/** Fills with bytes that differ from block to block, so that nothing is taken for zeros. */
export async function fill(target: Target, size: number): Promise<void> {
  const random = new SeededRandom('fill');
  const buffer = new Uint8Array(MEBIBYTE);
  for (let at = 0; at < size; at += buffer.byteLength) {
    random.fill(buffer.subarray(0, 4096));
    for (let i = 4096; i < buffer.byteLength; i += 4096) buffer.copyWithin(i, 0, 4096 - (i % 64));
    await target.write(at, buffer.subarray(0, Math.min(buffer.byteLength, size - at)));
  }
  await target.flush();
}
