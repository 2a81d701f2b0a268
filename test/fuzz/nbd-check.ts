/** Compares what a server sent with what the model says of what it was sent. */
import { Fields } from '../interop/nbd-conformance/bytes.ts';
import {
  Command,
  commandName,
  EXTENDED_REPLY_MAGIC,
  errnoName,
  Flag,
  Info,
  NBD_MAGIC,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  optionName,
  REPLY_DONE,
  Rep,
  replyName,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from '../interop/nbd-conformance/constants.ts';
import { isError, stringOf } from '../interop/nbd-conformance/negotiation.ts';
import { ReplyAssembly } from '../interop/nbd-conformance/reply-assembly.ts';
import type { ExportFacts, Reply } from '../interop/nbd-conformance/transmission.ts';
import { must } from '../interop/nbd-conformance/verdict.ts';
import { stillByte } from './nbd-exports.ts';
import type { Expected, ExpectedRequest, Understanding } from './nbd-model.ts';

/** The output ends here; whether it may is for the caller to say. */
class Cut extends Error {}

/**
 * @param complete the client read everything and closed its half last, so nothing may be missing
 * @returns how much was looked at, for figures
 * @throws Deviation
 */
export function checkOutput(
  output: Buffer,
  understood: Understanding,
  complete: boolean,
): { readonly options: number; readonly replies: number } {
  const check = new Check(output, understood);
  try {
    check.run();
  } catch (error) {
    if (!(error instanceof Cut)) throw error;
    must(!complete || understood.dropped, `the answers end too early: ${error.message}`);
    return check;
  }
  if (complete && !understood.dropped) check.nothingMissing();
  return check;
}

class Check {
  readonly #fields: Fields;
  readonly #understood: Understanding;
  readonly #pending = new Map<bigint, { asked: ExpectedRequest; assembly: ReplyAssembly }[]>();
  #facts: ExportFacts | undefined;
  options = 0;
  replies = 0;

  constructor(output: Buffer, understood: Understanding) {
    this.#fields = new Fields(output);
    this.#understood = understood;
  }

  run(): void {
    this.#need(18, 'the greeting');
    must(this.#fields.u64() === NBD_MAGIC && this.#fields.u64() === OPTION_MAGIC, 'no greeting');
    this.#fields.u16();
    let contexts: ExportFacts['contexts'] = [];
    const { options, entry, requests } = this.#understood;
    for (const [index, { option, final }] of options.entries()) {
      const found = this.#option(option, final);
      if (index === entry?.contextsFrom) contexts = found;
    }
    if (entry === undefined) {
      must(this.#fields.left === 0, `${this.#fields.left} bytes behind the last answer`);
      return;
    }
    const { plan, style, zeroes } = entry;
    if (zeroes !== undefined) {
      this.#need(10 + zeroes, 'the answer to EXPORT_NAME');
      this.#sizeAndFlags(BigInt(plan.size), plan.writable);
      must(this.#fields.take(zeroes).equals(Buffer.alloc(zeroes)), 'zeroes that are none');
    }
    this.#facts = { size: BigInt(plan.size), flags: 0, style, contexts };
    for (const asked of requests) {
      const same = this.#pending.get(asked.cookie) ?? [];
      same.push({ asked, assembly: new ReplyAssembly(asked, this.#facts) });
      this.#pending.set(asked.cookie, same);
    }
    while (this.#fields.left > 0) if (!this.#reply(this.#facts)) return;
  }

  nothingMissing(): void {
    const missing = [...this.#pending.values()].flat();
    must(
      missing.length === 0,
      `${missing.length} requests are not answered, the first is ${commandName(missing[0]?.asked.command ?? 0)}`,
    );
  }

  #need(length: number, what: string): void {
    if (this.#fields.left < length) throw new Cut(what);
  }

  #sizeAndFlags(size: bigint, writable: boolean): void {
    const found = this.#fields.u64();
    must(found === size, `size ${found}, not ${size}`);
    const flags = this.#fields.u16();
    must((flags & Flag.HAS_FLAGS) !== 0, 'HAS_FLAGS is not set');
    must(((flags & Flag.READ_ONLY) === 0) === writable, 'READ_ONLY is wrong');
  }

  /** Reads the replies to one option; the contexts that it named. */
  #option(option: number, expected: Expected): ExportFacts['contexts'] {
    const contexts: { id: number; name: string }[] = [];
    let hasExport = false;
    for (;;) {
      this.#need(20, `the answer to ${optionName(option)}`);
      must(this.#fields.u64() === OPTION_REPLY_MAGIC, 'a reply to an option without its magic');
      const about = this.#fields.u32();
      must(about === option, `a reply to option ${about}, the next one is ${option}`);
      const type = this.#fields.u32();
      const length = this.#fields.u32();
      this.#need(length, 'the data of a reply');
      const data = this.#fields.take(length);
      if (type === Rep.META_CONTEXT)
        contexts.push({ id: data.readUInt32BE(), name: stringOf(data.subarray(4), 'a context') });
      if (type === Rep.INFO && data.readUInt16BE() === Info.EXPORT) hasExport = true;
      if (type !== Rep.ACK && !isError(type)) continue;
      if (isError(type)) stringOf(data, 'an error message');
      const outcome = type === Rep.ACK ? 'success' : 'error';
      must(
        expected === 'any' || expected === outcome,
        `${optionName(option)} is answered by ${replyName(type)}`,
      );
      if (option === Option.GO && type === Rep.ACK) must(hasExport, 'GO without INFO_EXPORT');
      this.options++;
      return type === Rep.ACK ? contexts : [];
    }
  }

  /** @returns whether to go on: no, where cookies in flight were the same and nothing can be said */
  #reply(facts: ExportFacts): boolean {
    this.#need(4, 'a reply');
    const magic = this.#fields.u32();
    if (magic === SIMPLE_REPLY_MAGIC) return this.#simple(facts);
    must(
      magic === (facts.style === 'extended' ? EXTENDED_REPLY_MAGIC : STRUCTURED_REPLY_MAGIC) &&
        facts.style !== 'simple',
      `a reply with magic 0x${magic.toString(16)} where replies are ${facts.style}`,
    );
    return this.#chunk(facts);
  }

  #only(cookie: bigint): { asked: ExpectedRequest; assembly: ReplyAssembly } | undefined {
    const same = this.#pending.get(cookie) ?? [];
    must(same.length > 0, `a reply with cookie ${cookie}, which nothing waits with`);
    if (same.length === 1) return same[0];
    this.#pending.clear();
    return undefined;
  }

  #simple(facts: ExportFacts): boolean {
    this.#need(12, 'a simple reply');
    const error = this.#fields.u32();
    const found = this.#only(this.#fields.u64());
    if (found === undefined) return false;
    const { asked, assembly } = found;
    const isRead = asked.command === Command.READ;
    must(facts.style !== 'extended' && (facts.style === 'simple' || !isRead), 'a simple reply');
    const length = isRead && error === 0 ? Number(asked.length) : 0;
    this.#need(length, 'the data of a read');
    this.#finish(asked, assembly.simple(error, this.#fields.take(length)), facts);
    return true;
  }

  #chunk(facts: ExportFacts): boolean {
    const extended = facts.style === 'extended';
    this.#need(extended ? 28 : 16, 'the head of a chunk');
    const flags = this.#fields.u16();
    const type = this.#fields.u16();
    const found = this.#only(this.#fields.u64());
    if (found === undefined) return false;
    const { asked, assembly } = found;
    if (extended) must(this.#fields.u64() === asked.offset, 'the offset of an extended reply is another');
    const length = extended ? this.#fields.u64() : BigInt(this.#fields.u32());
    must((flags & ~REPLY_DONE) === 0, `flags 0x${flags.toString(16)} of a chunk`);
    must(length < 1n << 28n, `a chunk of ${length} bytes`);
    this.#need(Number(length), 'the payload of a chunk');
    assembly.add(type, this.#fields.take(Number(length)));
    if ((flags & REPLY_DONE) !== 0) this.#finish(asked, assembly.finish(), facts);
    return true;
  }

  #finish(asked: ExpectedRequest, reply: Reply, facts: ExportFacts): void {
    this.#pending.delete(asked.cookie);
    this.replies++;
    const isStatus = asked.command === Command.BLOCK_STATUS;
    const expected = isStatus && facts.contexts.length === 0 ? 'error' : asked.outcome;
    must(
      expected === 'any' || (expected === 'success') === (reply.error === 0),
      `${commandName(asked.command)} with flags ${asked.flags}, ${asked.length} bytes at ${asked.offset}, ends with ${errnoName(reply.error)} ${reply.message}`,
    );
    const { entry } = this.#understood;
    if (asked.command !== Command.READ || reply.error !== 0 || entry?.plan.name !== 'still') return;
    const start = Number(asked.offset);
    const wrong = reply.data.findIndex((byte, index) => byte !== stillByte(start + index));
    must(wrong === -1, `byte ${wrong} of a read at ${start} is ${reply.data[wrong]}`);
  }
}
