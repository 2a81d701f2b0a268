/**
 * CRC-32 as zip, PNG and zlib compute it (ISO 3309), fast where Node.js is not: on x86 its zlib goes through tables, 2 to 4 bytes a
 * nanosecond, which is a tenth of all that a first write of 16 KiB takes.
 *
 * A CRC is what remains of a polynomial over GF(2), divided by one of degree 32. A multiple of the divisor can be added anywhere without
 * changing it. Here one of five terms is, the eighth power of x^300 + x^155 + x^117 + x^89 + 1, so that its terms are whole bytes
 * apart: a byte is cleared by adding it to those 145, 183, 211 and 300 bytes behind it. So 16 bytes at a time are cleared by four
 * additions, without a table, until the last few are left, which go through 16 tables. (The idea is that of "Chorba", Russell 2024.
 * That multiple is the shortest of five terms: a search of all sums of two powers for equal ones finds it within a second.)
 *
 * That takes vectors of 16 bytes, which WebAssembly has, in a memory of its own:
 *
 *     INPUT    16 KiB, the data at its end, zeros before it
 *     CLEARED  what was added to the bytes behind it; zeros before and after it, so that nothing needs to be checked
 *     REST     the last bytes with all that was added to them
 *     TABLES   what each value of a byte becomes once 0 to 15 more are through
 *
 * A memory that threads share may be used instead, with data anywhere in it (`makeCrc32InPlace`): then nothing has to be copied to INPUT.
 *
 * Shared state: that memory, during one call; of one that is shared what lies below `CRC32_RESERVED`, which one thread may use.
 */
import * as zlib from 'node:zlib';

/** Continues `seed`, the CRC-32 of what comes before; 0 if nothing does. */
export type Crc32 = (data: Uint8Array, seed?: number) => number;
/** The same of the 16 KiB at a position of shared memory. While it computes the first four bytes are others. */
export type Crc32InPlace = (position: number, seed: number) => number;

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
  tables: 2 * 16_384 + 8_192,
  round: LANES * LANE,
  /** Of zeros that have to be there before CLEARED. */
  reach: 300,
  /** Below that many bytes zlib is as fast. */
  smallest: 2_048,
};

/** Bytes of a page of WebAssembly's. */
export const WASM_PAGE = 65_536;
/** Bytes at the beginning of a memory that are used here. */
export const CRC32_RESERVED = WASM_PAGE;

/** A memory that WebAssembly computes in. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
}

/** What TypeScript does not know without a browser's types. */
declare const WebAssembly: {
  Memory: new (pages: { initial: number; maximum: number; shared?: boolean }) => WasmMemory;
  Module: new (code: Uint8Array) => object;
  Instance: new (
    module: object,
    imports: { crc32: { memory: WasmMemory } },
  ) => { exports: { sum: (position: number, source: number) => number } };
};

/**
 * Compiled: the CRC-32 of data from a position on, counted as if they were at INPUT; `source` is where in the memory they are. They come
 * with what they continue in their first four bytes.
 * Encoding: WebAssembly core specification 2.0, chapter 5; of a shared memory that of its threads proposal.
 * @param pages of shared memory; a memory of its own has one
 */
function compile(pages?: number): object | undefined {
  // Elsewhere zlib uses the processor's own instructions, which are faster still.
  if (process.arch !== 'x64' || typeof WebAssembly === 'undefined') return undefined;
  const unsigned = (n: number): number[] => (n < 128 ? [n] : [(n % 128) + 128, ...unsigned(n >>> 7)]);
  const signed = (n: number): number[] =>
    n >= -64 && n < 64 ? [n & 127] : [(n & 127) + 128, ...signed(n >> 7)];
  const counted = (bytes: readonly number[]) => [...unsigned(bytes.length), ...bytes];
  const name = (text: string) => counted([...Buffer.from(text)]);
  const position = [0x20, 0]; // local.get 0
  const source = [0x20, 1]; // local.get 1
  const load = (offset: number) => [0xfd, 0x00, 0, ...unsigned(offset)]; // v128.load
  const xor = [0xfd, 0x51]; // v128.xor
  const clear = (from: number, target: number) => [
    ...position,
    ...[...source, ...load(from)],
    ...DISTANCES.flatMap((distance) => [...position, ...load(LAYOUT.cleared + from - distance), ...xor]),
    ...[0xfd, 0x0b, 0, ...unsigned(target + from)], // v128.store
  ];
  const loop = (target: number, end: number) => [
    ...[0x03, 0x40], // loop
    ...Array.from({ length: LANES }, (_, i) => clear(LANE * i, target)).flat(),
    ...[...source, 0x41, ...signed(LAYOUT.round), 0x6a, 0x21, 1], // i32.const, i32.add, local.set 1
    ...[...position, 0x41, ...signed(LAYOUT.round), 0x6a, 0x22, 0], // i32.const, i32.add, local.tee 0
    ...[0x41, ...signed(end), 0x49, 0x0d, 0, 0x0b], // i32.const, i32.lt_u, br_if 0, end
  ];
  const limits = pages === undefined ? [1, 1, 1] : [3, ...unsigned(pages), ...unsigned(pages)]; // at least and at most; 3: shared
  const end = LAYOUT.inputLength - LAYOUT.restLength;
  const crc = [0x20, 2]; // local.get 2
  const lookUp = (byte: number, following: number) => [
    ...[0x20, 3], // local.get 3
    ...(byte === 0 ? [0x41, 2, 0x74] : [0x41, 8 * byte - 2, 0x76]), // i32.const, i32.shl or i32.shr_u
    ...[0x41, ...signed(4 * 255), 0x71], // i32.const, i32.and
    ...[0x28, 2, ...unsigned(LAYOUT.tables + 4 * 256 * following)], // i32.load
  ];
  const word = (from: number) => [
    ...[...position, 0x28, 2, ...unsigned(LAYOUT.rest + from)], // i32.load
    ...(from === 0 ? [...crc, 0x73] : []), // i32.xor
    ...[0x21, 3], // local.set 3
    ...[0, 1, 2, 3].flatMap((byte) => [...lookUp(byte, LANE - 1 - from - byte), 0x73]), // i32.xor
  ];
  const divide = [
    ...[0x41, 0, 0x21, 0], // i32.const, local.set 0
    ...[0x03, 0x40], // loop
    ...[0x41, 0], // i32.const
    // The first word last: it waits for the round before.
    ...[4, 8, 12, 0].flatMap(word),
    ...[0x21, 2], // local.set 2
    ...[...position, 0x41, ...signed(LANE), 0x6a, 0x22, 0], // i32.const, i32.add, local.tee 0
    ...[0x41, ...signed(LAYOUT.restLength), 0x49, 0x0d, 0, 0x0b], // i32.const, i32.lt_u, br_if 0, end
    ...[...crc, 0x41, ...signed(-1), 0x73], // i32.const, i32.xor
  ];
  const code = [
    ...[1, 2, 0x7f], // locals 2 and 3 are i32
    ...[...loop(LAYOUT.cleared, end), ...loop(LAYOUT.rest - end, LAYOUT.inputLength), ...divide, 0x0b],
  ];
  const binary = [
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, ...counted([1, 0x60, 2, 0x7f, 0x7f, 1, 0x7f])], // type 0: takes two i32, gives one
    ...[2, ...counted([1, ...name('crc32'), ...name('memory'), 2, ...limits])], // import memory 0
    ...[3, ...counted([1, 0])], // function 0 is of type 0
    ...[7, ...counted([1, ...name('sum'), 0, 0])],
    ...[10, ...counted([1, ...counted(code)])],
  ];
  try {
    return new WebAssembly.Module(Uint8Array.from(binary));
  } catch {
    return undefined; // A processor without such vectors: zlib does it all.
  }
}

/**
 * What each value of a byte becomes once that byte is through.
 * @param polynomial of at most 32 bits, reflected
 */
export const crcTable = (polynomial: number): Uint32Array =>
  Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ polynomial;
    return value;
  });

/** One table after the other: what each value becomes once that byte and 0, 1, … 15 more are through. */
const TABLES = new Uint32Array(LANE * 256);
TABLES.set(crcTable(0xedb8_8320));
for (let at = 256; at < TABLES.length; at++) {
  const before = TABLES[at - 256] ?? 0;
  TABLES[at] = (before >>> 8) ^ (TABLES[before & 255] ?? 0);
}
const tableOf = (following: number): Uint32Array => TABLES.subarray(256 * following, 256 * (following + 1));
const TABLE_0 = tableOf(0);
const TABLE_1 = tableOf(1);
const TABLE_2 = tableOf(2);
const TABLE_3 = tableOf(3);

/** Puts the tables where WebAssembly wants them. */
const layTables = (memory: ArrayBuffer | SharedArrayBuffer): void =>
  new Uint32Array(memory, LAYOUT.tables, TABLES.length).set(TABLES);

/** For `makeCrc32`; `undefined`: there can be none. */
export const crc32Module = compile();

/** @param ofZlib computes the CRC-32 of what is short, and of what is left */
export function makeCrc32(module: object | undefined, ofZlib: Crc32): Crc32 {
  if (module === undefined) return ofZlib;
  let memory: WasmMemory;
  let sum: (position: number, source: number) => number;
  try {
    memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
    sum = new WebAssembly.Instance(module, { crc32: { memory } }).exports.sum;
  } catch {
    return ofZlib; // V8 reserves gigabytes of addresses for any memory, which `ulimit -v` may forbid.
  }
  const bytes = new Uint8Array(memory.buffer);
  const view = new DataView(memory.buffer);
  layTables(memory.buffer);
  return (data, seed = 0) => {
    let crc = seed;
    let done = 0;
    for (; data.byteLength - done >= LAYOUT.smallest; done += LAYOUT.inputLength) {
      const part =
        data.byteLength <= LAYOUT.inputLength ? data : data.subarray(done, done + LAYOUT.inputLength);
      const begin = LAYOUT.input + LAYOUT.inputLength - part.byteLength;
      const start = begin - (begin % LAYOUT.round);
      bytes.set(part, begin);
      bytes.fill(0, start, begin);
      if (start > 0) bytes.fill(0, LAYOUT.cleared + start - LAYOUT.reach, LAYOUT.cleared + start);
      // What a CRC continues is added to its first four bytes, inverted.
      view.setUint32(begin, view.getUint32(begin, true) ^ ~crc, true);
      crc = sum(start, start) >>> 0;
    }
    return done < data.byteLength ? ofZlib(data.subarray(done), crc) : crc;
  };
}

export const crc32: Crc32 = makeCrc32(crc32Module, zlib.crc32);

/** The CRC-32 of a few bytes, a multiple of four: a call of zlib takes longer. */
export function crc32OfFew(data: DataView): number {
  const { byteLength } = data;
  let crc = -1;
  for (let at = 0; at < byteLength; at += 4) {
    crc ^= data.getUint32(at, true);
    crc =
      (TABLE_3[crc & 255] ?? 0) ^
      (TABLE_2[(crc >>> 8) & 255] ?? 0) ^
      (TABLE_1[(crc >>> 16) & 255] ?? 0) ^
      (TABLE_0[crc >>> 24] ?? 0);
  }
  return ~crc >>> 0;
}

/** Memory for several threads, to be sent to one that uses `makeCrc32InPlace`. */
export interface SharedCrc32Memory {
  readonly buffer: SharedArrayBuffer;
  readonly layout: typeof LAYOUT;
  /** `undefined` where WebAssembly cannot be had: then zlib computes. */
  readonly wasm: { readonly memory: WasmMemory; readonly module: object } | undefined;
}

/** @param pages of 64 KiB @throws RangeError if there is not so much */
export function sharedCrc32Memory(pages: number): SharedCrc32Memory {
  const module = compile(pages);
  try {
    if (module !== undefined) {
      const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
      if (memory.buffer instanceof SharedArrayBuffer) {
        layTables(memory.buffer);
        return { buffer: memory.buffer, layout: LAYOUT, wasm: { memory, module } };
      }
    }
  } catch {} // Too few addresses, as above.
  return { buffer: new SharedArrayBuffer(pages * WASM_PAGE), layout: LAYOUT, wasm: undefined };
}

/** Uses nothing from outside of it, so that a thread whose program is text can have it as text. One thread may call what it makes. */
export const makeCrc32InPlace = (
  { buffer, layout, wasm }: SharedCrc32Memory,
  ofZlib: Crc32,
): Crc32InPlace => {
  const bytes = new Uint8Array(buffer);
  if (wasm === undefined)
    return (position, seed) => ofZlib(bytes.subarray(position, position + layout.inputLength), seed);
  const { memory, module } = wasm;
  const { sum } = new WebAssembly.Instance(module, { crc32: { memory } }).exports;
  const view = new DataView(buffer);
  return (position, seed) => {
    const first = view.getUint32(position, true);
    view.setUint32(position, first ^ ~seed, true);
    const crc = sum(0, position) >>> 0;
    view.setUint32(position, first, true);
    return crc;
  };
};
