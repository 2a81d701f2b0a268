/** Puts the chunks of one reply together, and checks that each fits its request and the others. */
import { Fields } from './bytes.ts';
import { Chunk, Command, CommandFlag, commandName } from './constants.ts';
import { stringOf } from './negotiation.ts';
import type { Asked, ExportFacts, Extent, Reply } from './transmission.ts';
import { must } from './verdict.ts';

interface Range {
  readonly start: bigint;
  readonly end: bigint;
}

export class ReplyAssembly {
  readonly #asked: Asked;
  readonly #facts: ExportFacts;
  readonly #chunks: number[] = [];
  readonly #content: (Range & { readonly data?: Buffer })[] = [];
  readonly #extents = new Map<number, readonly Extent[]>();
  #error = 0;
  #message = '';

  constructor(asked: Asked, facts: ExportFacts) {
    this.#asked = asked;
    this.#facts = facts;
  }

  simple(error: number, data: Buffer): Reply {
    return { error, message: '', data, extents: new Map(), chunks: [] };
  }

  add(type: number, payload: Buffer): void {
    this.#chunks.push(type);
    const fields = new Fields(payload);
    if (type === Chunk.NONE) must(payload.length === 0, `a NONE chunk of ${payload.length} bytes`);
    else if (type === Chunk.OFFSET_DATA) this.#data(fields);
    else if (type === Chunk.OFFSET_HOLE) this.#hole(fields);
    else if (type === Chunk.BLOCK_STATUS) this.#status(fields, false);
    else if (type === Chunk.BLOCK_STATUS_EXT) this.#status(fields, true);
    else if (type === Chunk.ERROR || type === Chunk.ERROR_OFFSET) this.#failure(type, fields);
    else must(false, `a chunk of unknown type 0x${type.toString(16)}`);
  }

  finish(): Reply {
    const { command } = this.#asked;
    const succeeded = this.#error === 0;
    if (succeeded && command === Command.READ) this.#coversAll();
    if (succeeded && command === Command.BLOCK_STATUS) this.#answersEachContext();
    return {
      error: this.#error,
      message: this.#message,
      data: succeeded && command === Command.READ ? this.#joined() : Buffer.alloc(0),
      extents: this.#extents,
      chunks: this.#chunks,
    };
  }

  #data(fields: Fields): void {
    must(fields.left >= 9, `an OFFSET_DATA chunk of ${fields.left} bytes`);
    const start = fields.u64();
    const data = fields.rest();
    this.#place({ start, end: start + BigInt(data.length) }, data);
  }

  #hole(fields: Fields): void {
    must(fields.left === 12, `an OFFSET_HOLE chunk of ${fields.left} bytes`);
    const start = fields.u64();
    const length = fields.u32();
    must(length > 0, 'a hole of 0 bytes');
    this.#place({ start, end: start + BigInt(length) });
  }

  #place(range: Range, data?: Buffer): void {
    const { command, offset, length, flags } = this.#asked;
    must(command === Command.READ, `content in the reply to ${commandName(command)}`);
    must(
      range.start >= offset && range.end <= offset + length,
      `content of ${range.start} to ${range.end}, asked was ${offset} to ${offset + length}`,
    );
    for (const other of this.#content)
      must(range.end <= other.start || range.start >= other.end, `content of ${range.start} comes twice`);
    this.#content.push(data === undefined ? range : { ...range, data });
    must(
      (flags & CommandFlag.DF) === 0 || this.#content.length === 1,
      'more than one content chunk although DF was set',
    );
  }

  #status(fields: Fields, extended: boolean): void {
    const { command, flags, length } = this.#asked;
    must(command === Command.BLOCK_STATUS, `block status in the reply to ${commandName(command)}`);
    must(
      extended === (this.#facts.style === 'extended'),
      `a status chunk of the ${extended ? 'extended' : 'compact'} kind where replies are ${this.#facts.style}`,
    );
    must(fields.left >= (extended ? 8 : 4), 'a status chunk without a context id');
    const id = fields.u32();
    must(
      this.#facts.contexts.some((context) => context.id === id),
      `status of context ${id}, which was not selected`,
    );
    must(!this.#extents.has(id), `two status chunks of context ${id}`);
    const count = extended ? fields.u32() : fields.left / 8;
    must(
      Number.isInteger(count) && fields.left === count * (extended ? 16 : 8),
      `${fields.left} bytes for ${count} extents`,
    );
    must(count > 0, 'a status chunk without extents');
    const extents: Extent[] = [];
    for (let index = 0; index < count; index++) {
      if (extended) extents.push({ length: fields.u64(), status: fields.u64() });
      else extents.push({ length: BigInt(fields.u32()), status: BigInt(fields.u32()) });
    }
    let before = 0n;
    for (const [index, extent] of extents.entries()) {
      must(extent.length > 0n, 'an extent of 0 bytes');
      must(extent.status < 1n << 32n, `status 0x${extent.status.toString(16)} has more than 32 bits`);
      // With the payload form the effect length stands in the payload, which the case checks itself.
      if (index > 0 && (flags & CommandFlag.PAYLOAD_LEN) === 0)
        must(
          before < length,
          `an extent begins at or behind the end of the request (${before} of ${length})`,
        );
      before += extent.length;
    }
    if ((flags & CommandFlag.REQ_ONE) !== 0) {
      must(count === 1, `${count} extents although one was asked for`);
      must(
        (flags & CommandFlag.PAYLOAD_LEN) !== 0 || before <= length,
        `the one extent is ${before} bytes long, asked was ${length}`,
      );
    }
    this.#extents.set(id, extents);
  }

  #failure(type: number, fields: Fields): void {
    const fixed = type === Chunk.ERROR_OFFSET ? 14 : 6;
    must(fields.left >= fixed, `an error chunk of ${fields.left} bytes`);
    const error = fields.u32();
    const length = fields.u16();
    must(error !== 0, 'an error chunk with error 0');
    must(length <= fields.left - (fixed - 6), `an error message of ${length} bytes in ${fields.left}`);
    const message = stringOf(fields.take(length), 'an error message');
    if (type === Chunk.ERROR_OFFSET) {
      const at = fields.u64();
      const { offset } = this.#asked;
      must(at >= offset && at < offset + this.#asked.length, `an error at ${at}, outside of the request`);
    }
    if (this.#error !== 0) return;
    this.#error = error;
    this.#message = message;
  }

  #coversAll(): void {
    const covered = this.#content.reduce((sum, { start, end }) => sum + (end - start), 0n);
    must(covered === this.#asked.length, `${covered} of ${this.#asked.length} bytes came without an error`);
  }

  #answersEachContext(): void {
    if ((this.#asked.flags & CommandFlag.PAYLOAD_LEN) !== 0) return;
    const missing = this.#facts.contexts.filter(({ id }) => !this.#extents.has(id));
    must(missing.length === 0, `no status of ${missing.map(({ name }) => name).join(', ')}`);
  }

  #joined(): Buffer {
    const { offset, length } = this.#asked;
    const whole = Buffer.alloc(Number(length));
    for (const { start, data } of this.#content) data?.copy(whole, Number(start - offset));
    return whole;
  }
}
