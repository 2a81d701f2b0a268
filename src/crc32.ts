/**
 * CRC-32 as zip, PNG and zlib compute it (ISO 3309), fast where Node.js is not: on x86 its zlib goes through tables, 2 to 4 bytes a
 * nanosecond, which is a tenth of all that a first write of 16 KiB takes.
 *
 * A CRC is what remains of a polynomial over GF(2), divided by one of degree 32. A multiple of the divisor can be added anywhere without
 * changing it. Here one of seven terms is, the eighth power of x^398 + x^366 + x^197 + x^165 + x^96 + x^48 + 1, so that its terms are whole
 * bytes apart: a byte is cleared by adding it to those 48, 96, 165, 197, 366 and 398 before it. So, from the end to the beginning, 16 bytes
 * at a time are cleared without a table, until the first few are left. Those go through 16 tables; a multiplication by a power of x
 * stands for the zeros behind them. (To add multiples is the idea of "Chorba", Russell 2024.)
 *
 * Loads are what takes the time. Two of the distances are whole vectors, the last six of which stay in registers. The others come in pairs,
 * two vectors apart: the sum of a vector and the one two behind it is stored, so two loads do for four terms. That multiple has the shortest reach
 * of those of that kind; a search of all sums of two powers for a wanted one finds it within a second.
 *
 * That takes vectors of 16 bytes, which WebAssembly has, in a memory of its own:
 *
 *     INPUT    16 KiB, the data at its end, zeros before it
 *     CLEARED  sums of what was added to the bytes before it; zeros around it, so that nothing needs to be checked
 *     REST     the first bytes with all that was added to them
 *     TABLES   what each value of a byte becomes once 0 to 15 more are through
 *
 * A memory that threads share may be used instead, with data anywhere in it (`makeCrc32InPlace`): then nothing has to be copied to INPUT.
 *
 * Shared state: that memory, during one call; of one that is shared, below `CRC32_RESERVED`, each thread has areas of its own.
 */
import * as zlib from 'node:zlib';

/** Continues `seed`, the CRC-32 of what comes before; 0 if nothing does. */
export type Crc32 = (data: Uint8Array, seed?: number) => number;
/** The CRC-32 of the 16 KiB at a position of shared memory. While it computes the first four bytes are others. */
export type Crc32InPlace = (position: number) => number;

/** Bytes of a vector, and vectors that one round of a loop clears: as many as stay in registers, each takes the place of the one six behind it. */
const LANE = 16;
const LANES = 6;
const ROUND = LANES * LANE;
/** How far before a byte those lie that it is added to: in vectors, what stays in registers; in bytes, what comes in pairs, so many vectors apart. */
const KEPT = [3, 6];
const NEAR = 165;
const FAR = 366;
const APART = 2;
const POLYNOMIAL = 0xedb8_8320;

/** Positions and lengths within the memory, bytes. */
const LAYOUT = {
  input: 0,
  /** Half a page of the processor's behind INPUT: else a load of the one would seem to want what was just stored to the other. */
  cleared: 16_384 + 2_048,
  rest: 2 * 16_384 + 4_096,
  inputLength: 16_384,
  /** At least as much as the multiple reaches, and whole rounds less than INPUT. */
  restLength: 448,
  tables: 2 * 16_384 + 8_192,
  /** Below that many bytes zlib is as fast. */
  smallest: 2_048,
};

/** Bytes of a page of WebAssembly's. */
export const WASM_PAGE = 65_536;
/** Threads that may compute in one memory at the same time. */
export const CRC32_THREADS = 4;
/** Bytes at the beginning of a shared memory that are used here. */
export const CRC32_RESERVED = CRC32_THREADS * WASM_PAGE;

/** A memory that WebAssembly computes in. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
}

/** @param factor a power of x for all that follows the rest */
type Sum = (start: number, source: number, factor: number) => number;

/** What TypeScript does not know without a browser's types. */
declare const WebAssembly: {
  Memory: new (pages: { initial: number; maximum: number; shared?: boolean }) => WasmMemory;
  Module: new (code: Uint8Array) => object;
  Instance: new (module: object, imports: { crc32: { memory: WasmMemory } }) => { exports: { sum: Sum } };
};

/**
 * Compiled: the CRC-32 of data from `start` on, counted as if they were at INPUT, whole rounds before its end; `source` is where in the memory they are.
 * They come with what they continue in their first four bytes.
 * Encoding: WebAssembly core specification 2.0, chapter 5; of a shared memory that of its threads proposal.
 * @param pages of shared memory; a memory of its own has one
 * @param base where in it the areas begin
 */
function compile(pages?: number, base = 0): object | undefined {
  // Elsewhere zlib uses the processor's own instructions, which are faster still.
  if (process.arch !== 'x64' || typeof WebAssembly === 'undefined') return undefined;
  const unsigned = (n: number): number[] => (n < 128 ? [n] : [(n % 128) + 128, ...unsigned(n >>> 7)]);
  const signed = (n: number): number[] =>
    n >= -64 && n < 64 ? [n & 127] : [(n & 127) + 128, ...signed(n >> 7)];
  const counted = (bytes: readonly number[]) => [...unsigned(bytes.length), ...bytes];
  const name = (text: string) => counted([...Buffer.from(text)]);

  const layout = { cleared: base + LAYOUT.cleared, rest: base + LAYOUT.rest, tables: base + LAYOUT.tables };
  const get = (local: number) => [0x20, local];
  const set = (local: number) => [0x21, local];
  const tee = (local: number) => [0x22, local];
  const constant = (n: number) => [0x41, ...signed(n)];
  const [add, subtract, and, xor] = [[0x6a], [0x6b], [0x71], [0x73]] as const;
  const load = (base: number, offset: number) => [...get(base), 0xfd, 0x00, 0, ...unsigned(offset)]; // v128.load
  const store = (base: readonly number[], offset: number, value: readonly number[]) => [
    ...[...base, ...value, 0xfd, 0x0b, 0, ...unsigned(offset)], // v128.store
  ];
  const sum = (...vectors: readonly (readonly number[])[]) =>
    vectors.flatMap((vector, i) => (i === 0 ? vector : [...vector, 0xfd, 0x51])); // v128.xor

  const [start, source, factor, at, from, crc, word] = [0, 1, 2, 3, 4, 5, 6] as const;
  /** The vectors that stay: `behind` the one of number `i`, those of the rest included, which come after the last round. */
  const kept = (i: number, behind: number) => 7 + ((i + LANES - behind) % LANES);
  const near = (i: number) => 7 + LANES + (i % 2);

  const clear = (i: number) => {
    const offset = ROUND - LANE * (i + 1);
    const cleared = layout.cleared + offset;
    const bytes = Array.from({ length: LANE }, (_, byte) => (NEAR % LANE) + byte);
    // Put together of whole vectors: one of which two stores of a moment ago have a part each would wait for both.
    const nearby = [
      ...[...load(at, cleared + NEAR - (NEAR % LANE)), ...tee(near(i)), ...get(near(i + 1))],
      ...[0xfd, 0x0d, ...bytes], // i8x16.shuffle
    ];
    const behind = KEPT.map((distance) => get(kept(i, distance)));
    return [
      ...[...sum(load(from, offset), load(at, cleared + FAR), nearby, ...behind), ...set(kept(i, 0))],
      ...store(get(at), cleared, sum(get(kept(i, 0)), get(kept(i, APART)))),
    ];
  };
  const rounds = [
    ...[
      ...get(source),
      ...get(start),
      ...subtract,
      ...constant(LAYOUT.inputLength - ROUND),
      ...add,
      ...set(from),
    ],
    ...[...constant(LAYOUT.inputLength - ROUND), ...set(at)],
    ...[0x03, 0x40], // loop
    ...Array.from({ length: LANES }, (_, i) => clear(i)).flat(),
    ...[...get(from), ...constant(ROUND), ...subtract, ...set(from)],
    ...[...get(at), ...constant(ROUND), ...subtract, ...tee(at)],
    ...[...get(start), ...constant(LAYOUT.restLength), ...add, 0x4e, 0x0d, 0, 0x0b], // i32.ge_s, br_if 0, end
  ];

  const keep = (i: number) => {
    const offset = LAYOUT.restLength - LANE * (i + 1);
    const cleared = layout.cleared + offset;
    const behind = KEPT.filter((distance) => distance > i).map((distance) => get(kept(i, distance)));
    return [
      ...(i < APART ? store(get(start), cleared, get(kept(i, APART))) : []),
      ...store(
        constant(0),
        layout.rest + offset,
        sum(load(source, offset), load(start, cleared + NEAR), load(start, cleared + FAR), ...behind),
      ),
    ];
  };
  const rest = Array.from({ length: LAYOUT.restLength / LANE }, (_, i) => keep(i)).flat();

  const lookUp = (byte: number, following: number) => [
    ...get(word),
    ...(byte === 0 ? [...constant(2), 0x74] : [...constant(8 * byte - 2), 0x76]), // i32.shl or i32.shr_u
    ...[...constant(4 * 255), ...and],
    ...[0x28, 2, ...unsigned(layout.tables + 4 * 256 * following)], // i32.load
  ];
  const divideWord = (offset: number) => [
    ...[...get(at), 0x28, 2, ...unsigned(layout.rest + offset)], // i32.load
    ...(offset === 0 ? [...get(crc), ...xor] : []),
    ...set(word),
    ...[0, 1, 2, 3].flatMap((byte) => [...lookUp(byte, LANE - 1 - offset - byte), ...xor]),
  ];
  const divide = [
    ...[...constant(0), ...set(at)],
    ...[0x03, 0x40], // loop
    ...constant(0),
    // The first word last: it waits for the round before.
    ...[4, 8, 12, 0].flatMap(divideWord),
    ...set(crc),
    ...[...get(at), ...constant(LANE), ...add, ...tee(at)],
    ...[...constant(LAYOUT.restLength), 0x49, 0x0d, 0, 0x0b], // i32.lt_u, br_if 0, end
  ];

  const isSet = [...get(crc), ...constant(31), 0x75]; // i32.shr_s: all ones or zeros
  const isOdd = [...constant(0), ...get(factor), ...constant(1), ...and, ...subtract];
  const multiply = [
    ...[...constant(0), ...set(word), ...constant(32), ...set(at)],
    ...[0x03, 0x40], // loop
    ...[...get(factor), ...isSet, ...and, ...get(word), ...xor, ...set(word)],
    ...[...get(crc), ...constant(1), 0x74, ...set(crc)], // i32.shl
    ...[...get(factor), ...constant(1), 0x76], // i32.shr_u
    ...[...isOdd, ...constant(POLYNOMIAL | 0), ...and, ...xor, ...set(factor)],
    ...[...get(at), ...constant(1), ...subtract, ...tee(at), 0x0d, 0, 0x0b], // br_if 0, end
  ];

  const limits = pages === undefined ? [1, 1, 1] : [3, ...unsigned(pages), ...unsigned(pages)]; // at least and at most; 3: shared
  const code = [
    ...[2, 4, 0x7f, LANES + 2, 0x7b], // locals 3 to 6 are i32, those behind them v128
    ...[...rounds, ...rest, ...divide, ...multiply],
    ...[...get(word), ...constant(-1), ...xor, 0x0b],
  ];
  const binary = [
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, ...counted([1, 0x60, 3, 0x7f, 0x7f, 0x7f, 1, 0x7f])], // type 0: takes three i32, gives one
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
TABLES.set(crcTable(POLYNOMIAL));
for (let at = 256; at < TABLES.length; at++) {
  const before = TABLES[at - 256] ?? 0;
  TABLES[at] = (before >>> 8) ^ (TABLES[before & 255] ?? 0);
}

/** The product of two polynomials, reflected, modulo the divisor. */
function product(a: number, b: number): number {
  let sum = 0;
  for (let left = a | 0, right = b; left !== 0; left <<= 1) {
    if (left < 0) sum ^= right;
    right = (right & 1) === 0 ? right >>> 1 : (right >>> 1) ^ POLYNOMIAL;
  }
  return sum >>> 0;
}

const powers = (base: number, count: number): Uint32Array => {
  const found = new Uint32Array(count).fill(0x8000_0000);
  for (let i = 1; i < count; i++) found[i] = product(found[i - 1] ?? 0, base);
  return found;
};
/** By how many rounds follow: the power of x for so many bytes. */
const FACTORS = powers(
  powers(0x0080_0000, ROUND + 1)[ROUND] ?? 0,
  (LAYOUT.inputLength - LAYOUT.restLength) / ROUND + 1,
);
/** For all of INPUT. */
const WHOLE_FACTOR = FACTORS.at(-1) ?? 0;

/** Puts the tables where WebAssembly wants them. */
const layTables = (memory: ArrayBuffer | SharedArrayBuffer, base = 0): void =>
  new Uint32Array(memory, base + LAYOUT.tables, TABLES.length).set(TABLES);

/** For `makeCrc32`; `undefined`: there can be none. */
export const crc32Module = compile();

/** @param ofZlib computes the CRC-32 of what is short, and of what is left */
export function makeCrc32(module: object | undefined, ofZlib: Crc32): Crc32 {
  if (module === undefined) return ofZlib;
  let memory: WasmMemory;
  let sum: Sum;
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
      const start = begin - (begin % ROUND);
      bytes.set(part, begin);
      bytes.fill(0, start, begin);
      if (start > 0) bytes.fill(0, LAYOUT.cleared + start, LAYOUT.cleared + start + LAYOUT.restLength);
      // What a CRC continues is added to its first four bytes, inverted.
      view.setUint32(begin, view.getUint32(begin, true) ^ ~crc, true);
      crc = sum(start, start, FACTORS[FACTORS.length - 1 - start / ROUND] ?? 0) >>> 0;
    }
    return done < data.byteLength ? ofZlib(data.subarray(done), crc) : crc;
  };
}

export const crc32: Crc32 = makeCrc32(crc32Module, zlib.crc32);

/** Memory for several threads. */
export interface SharedCrc32Memory {
  readonly buffer: SharedArrayBuffer;
  /** The same for WebAssembly; `undefined` where that cannot be had. */
  readonly wasm: WasmMemory | undefined;
}

/** @param pages of 64 KiB @throws RangeError if there is not so much */
export function sharedCrc32Memory(pages: number): SharedCrc32Memory {
  try {
    if (crc32Module !== undefined) {
      const wasm = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
      if (wasm.buffer instanceof SharedArrayBuffer) return { buffer: wasm.buffer, wasm };
    }
  } catch {} // Too few addresses, as above.
  return { buffer: new SharedArrayBuffer(pages * WASM_PAGE), wasm: undefined };
}

/** What one thread needs to compute in shared memory; to be sent to it. */
export interface Crc32Place {
  readonly buffer: SharedArrayBuffer;
  readonly inputLength: number;
  readonly factor: number;
  /** `undefined`: zlib computes. */
  readonly wasm: { readonly memory: WasmMemory; readonly module: object } | undefined;
}

/** @param thread its number, below `CRC32_THREADS`; each has areas of its own */
export function crc32Place({ buffer, wasm }: SharedCrc32Memory, thread: number): Crc32Place {
  const base = thread * WASM_PAGE;
  const module = wasm && compile(buffer.byteLength / WASM_PAGE, base);
  if (module !== undefined) layTables(buffer, base);
  const whole = { buffer, inputLength: LAYOUT.inputLength, factor: WHOLE_FACTOR };
  return { ...whole, wasm: wasm && module && { memory: wasm, module } };
}

/** Uses nothing from outside of it, so that a thread whose program is text can have it as text. One thread may call what it makes. */
export const makeCrc32InPlace = (
  { buffer, inputLength, factor, wasm }: Crc32Place,
  ofZlib: Crc32,
): Crc32InPlace => {
  const bytes = new Uint8Array(buffer);
  if (wasm === undefined) return (position) => ofZlib(bytes.subarray(position, position + inputLength));
  const { memory, module } = wasm;
  const { sum } = new WebAssembly.Instance(module, { crc32: { memory } }).exports;
  const view = new DataView(buffer);
  return (position) => {
    const first = view.getUint32(position, true);
    view.setUint32(position, ~first, true);
    const crc = sum(0, position, factor) >>> 0;
    view.setUint32(position, first, true);
    return crc;
  };
};
