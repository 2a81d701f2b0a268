/**
 * CRC-32 as zip, PNG and zlib compute it (ISO 3309), fast where Node.js is not: on x86 its zlib goes through tables, 2 to 4 bytes a
 * nanosecond, which is a tenth of all that a first write of 16 KiB takes.
 *
 * A CRC is what remains of a polynomial over GF(2), divided by one of degree 32. A multiple of the divisor can be added anywhere without
 * changing it. Here one of five terms is, the eighth power of x^300 + x^155 + x^117 + x^89 + 1, so that its terms are whole bytes
 * apart: a byte is cleared by adding it to those 145, 183, 211 and 300 bytes behind it. So 16 bytes at a time are cleared by four
 * additions, without a table, until the last few are left, which zlib takes. (The idea is that of "Chorba", Russell 2024. That multiple is
 * the shortest of five terms: a search of all sums of two powers for equal ones finds it within a second.)
 *
 * That takes vectors of 16 bytes, which WebAssembly has, in a memory of its own:
 *
 *     INPUT    16 KiB, the data at its end, zeros before it
 *     CLEARED  what was added to the bytes behind it; zeros before and after it, so that nothing needs to be checked
 *     REST     the last bytes with all that was added to them
 *
 * Shared state: that memory, during one call.
 */
import * as zlib from 'node:zlib';

/** Continues `seed`, the CRC-32 of what comes before; 0 if nothing does. */
export type Crc32 = (data: Uint8Array, seed?: number) => number;

/** How far behind a byte those lie that it is added to; each at least a lane. */
const DISTANCES = [145, 183, 211, 300];
/** Bytes of a vector, and vectors that one round of a loop clears. */
const LANE = 16;
const LANES = 8;

/** Positions and lengths within the memory, bytes. */
const LAYOUT = {
  input: 0,
  /** Half a page of the processor's behind INPUT: else a load of the one would seem to want what was just stored to the other. */
  cleared: 16_384 + 2_048,
  rest: 2 * 16_384 + 4_096,
  inputLength: 16_384,
  restLength: 3 * LANES * LANE,
  round: LANES * LANE,
  /** Of zeros that have to be there before CLEARED. */
  reach: 300,
  /** Below that many bytes zlib is as fast. */
  smallest: 2_048,
};

/** What TypeScript does not know without a browser's types. */
declare const WebAssembly: {
  Module: new (code: Uint8Array) => object;
  Instance: new (
    module: object,
  ) => { exports: { memory: { buffer: ArrayBuffer }; clear: (position: number) => void } };
};

/** Compiled: one page of memory, and a function that clears INPUT from a position on. Encoding: WebAssembly core specification 2.0, chapter 5. */
function compile(): object | undefined {
  // Elsewhere zlib uses the processor's own instructions, which are faster still.
  if (process.arch !== 'x64' || typeof WebAssembly === 'undefined') return undefined;
  const unsigned = (n: number): number[] => (n < 128 ? [n] : [(n % 128) + 128, ...unsigned(n >>> 7)]);
  const signed = (n: number): number[] => (n < 64 ? [n] : [(n % 128) + 128, ...signed(n >>> 7)]);
  const counted = (bytes: readonly number[]) => [...unsigned(bytes.length), ...bytes];
  const name = (text: string) => counted([...Buffer.from(text)]);
  const position = [0x20, 0]; // local.get 0
  const load = (offset: number) => [...position, 0xfd, 0x00, 0, ...unsigned(offset)]; // v128.load
  const xor = [0xfd, 0x51]; // v128.xor
  const clear = (from: number, target: number) => [
    ...position,
    ...load(LAYOUT.input + from),
    ...DISTANCES.flatMap((distance) => [...load(LAYOUT.cleared + from - distance), ...xor]),
    ...[0xfd, 0x0b, 0, ...unsigned(target + from)], // v128.store
  ];
  const loop = (target: number, end: number) => [
    ...[0x03, 0x40], // loop
    ...Array.from({ length: LANES }, (_, i) => clear(LANE * i, target)).flat(),
    ...[...position, 0x41, ...signed(LAYOUT.round), 0x6a, 0x22, 0], // i32.const, i32.add, local.tee 0
    ...[0x41, ...signed(end), 0x49, 0x0d, 0, 0x0b], // i32.const, i32.lt_u, br_if 0, end
  ];
  const end = LAYOUT.inputLength - LAYOUT.restLength;
  const code = [0, ...loop(LAYOUT.cleared, end), ...loop(LAYOUT.rest - end, LAYOUT.inputLength), 0x0b];
  const binary = [
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, ...counted([1, 0x60, 1, 0x7f, 0])], // type 0: takes an i32
    ...[3, ...counted([1, 0])], // function 0 is of type 0
    ...[5, ...counted([1, 0, 1])], // memory 0 has one page
    ...[7, ...counted([2, ...name('memory'), 2, 0, ...name('clear'), 0, 0])],
    ...[10, ...counted([1, ...counted(code)])],
  ];
  try {
    return new WebAssembly.Module(Uint8Array.from(binary));
  } catch {
    return undefined; // A processor without such vectors: zlib does it all.
  }
}

/** What `makeCrc32` takes; a thread gets it as a message. */
export const crc32Parts = { module: compile(), layout: LAYOUT };

/**
 * Uses nothing from outside of it, so that a thread whose program is text can have it as text.
 * @param ofZlib computes the CRC-32 of what is short, and of what is left
 */
export const makeCrc32 = ({ module, layout }: typeof crc32Parts, ofZlib: Crc32): Crc32 => {
  if (module === undefined) return ofZlib;
  let exports: { memory: { buffer: ArrayBuffer }; clear: (position: number) => void };
  try {
    exports = new WebAssembly.Instance(module).exports;
  } catch {
    return ofZlib; // V8 reserves gigabytes of addresses for any memory, which `ulimit -v` may forbid.
  }
  const { memory, clear } = exports;
  const bytes = new Uint8Array(memory.buffer);
  const view = new DataView(memory.buffer);
  const rest = bytes.subarray(layout.rest, layout.rest + layout.restLength);
  return (data, seed = 0) => {
    let crc = seed;
    let done = 0;
    for (; data.byteLength - done >= layout.smallest; done += layout.inputLength) {
      const part =
        data.byteLength <= layout.inputLength ? data : data.subarray(done, done + layout.inputLength);
      const begin = layout.input + layout.inputLength - part.byteLength;
      const start = begin - (begin % layout.round);
      bytes.set(part, begin);
      bytes.fill(0, start, begin);
      if (start > 0) bytes.fill(0, layout.cleared + start - layout.reach, layout.cleared + start);
      // What a CRC continues is added to its first four bytes, inverted.
      view.setUint32(begin, view.getUint32(begin, true) ^ ~crc, true);
      clear(start);
      crc = ofZlib(rest, 0xffff_ffff);
    }
    return done < data.byteLength ? ofZlib(data.subarray(done), crc) : crc;
  };
};

export const crc32: Crc32 = makeCrc32(crc32Parts, zlib.crc32);
