/** Valid conversations of an NBD client, drawn from a seed, as messages whose fields are known. */
import type { SeededRandom } from '../../src/testing/seeded-random.ts';
import { counted, join, u16, u32, u64 } from '../interop/nbd-conformance/bytes.ts';
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_MAGIC,
  OPTION_MAGIC,
  Option,
  REQUEST_MAGIC,
} from '../interop/nbd-conformance/constants.ts';
import { infoData, metaData } from '../interop/nbd-conformance/negotiation.ts';
import { PLANS } from './nbd-exports.ts';

/** The last one is the second client's. */
const OPEN_TO_ALL = PLANS.slice(0, -1);

/** A field of a message that a mutation may set. */
export interface Field {
  readonly at: number;
  readonly width: 2 | 4 | 8;
}

export interface Message {
  readonly name: string;
  readonly bytes: Buffer;
  readonly fields: readonly Field[];
}

const QUERIES = ['base:allocation', 'base:', 'x-fuzz:stripes', 'x-fuzz:', 'x-nobody:thing', 'base:nothing'];
const FLAG_SETS = [
  0,
  0,
  0,
  CommandFlag.FUA,
  CommandFlag.NO_HOLE,
  CommandFlag.DF,
  CommandFlag.REQ_ONE,
  1 << 9,
];

function optionMessage(option: number, data: Buffer, inner: readonly Field[] = []): Message {
  const fields: Field[] = [
    { at: 0, width: 8 },
    { at: 8, width: 4 },
    { at: 12, width: 4 },
    ...inner.map(({ at, width }) => ({ at: at + 16, width })),
  ];
  return {
    name: `option ${option}`,
    bytes: join(u64(OPTION_MAGIC), u32(option), u32(data.length), data),
    fields,
  };
}

/** Draws one conversation: client flags, options, an export, requests. */
export class Conversation {
  readonly messages: Message[] = [];
  readonly #random: SeededRandom;
  #extended = false;
  /** Of the export that the requests are for, bytes. */
  #size = 0;
  #cookie: bigint;
  readonly #about: string;

  constructor(random: SeededRandom) {
    this.#random = random;
    this.#cookie = BigInt(random.next()) << 32n;
    this.#about = random.pick(OPEN_TO_ALL).name;
    const flags = random.pick([3, 3, 3, 1, 2, 0]);
    this.messages.push({ name: 'client flags', bytes: u32(flags), fields: [{ at: 0, width: 4 }] });
    const options = random.pick([0, 0, 1, 1, 2, 3, 6]);
    for (let count = 0; count < options; count++) this.messages.push(this.#option());
    if (random.chance(0.3)) this.#select();
    if (random.chance(0.06)) return;
    this.messages.push(this.#entry());
    const requests = random.pick([1, 2, 4, 8, 20]);
    for (let count = 0; count < requests; count++) this.messages.push(this.#request());
    if (random.chance(0.4)) this.messages.push(this.#requestOf(Command.DISC, 0, 0n, 0n, Buffer.alloc(0)));
  }

  /** Mostly the one that the conversation is about: contexts count for the export that they were selected for. */
  #name(): string {
    if (this.#random.chance(0.75)) return this.#about;
    if (this.#random.chance(0.2)) return this.#random.pick(['nothing', 'stil', 'x'.repeat(300)]);
    return this.#random.pick(OPEN_TO_ALL).name;
  }

  #option(): Message {
    const random = this.#random;
    switch (random.below(11)) {
      case 0:
        return optionMessage(Option.LIST, Buffer.alloc(0));
      case 1: {
        const name = this.#name();
        const data = infoData(
          name,
          Array.from({ length: random.below(5) }, () => random.below(6)),
        );
        return optionMessage(Option.INFO, data, [{ at: 0, width: 4 }]);
      }
      case 2:
      case 3:
        return optionMessage(Option.STRUCTURED_REPLY, Buffer.alloc(0));
      case 4:
      case 5:
        this.#extended = true;
        return optionMessage(Option.EXTENDED_HEADERS, Buffer.alloc(0));
      case 6:
        return this.#meta(Option.LIST_META_CONTEXT);
      case 7:
      case 8:
        return this.#meta(Option.SET_META_CONTEXT);
      case 9:
        return random.chance(0.2)
          ? optionMessage(random.pick([Option.ABORT, Option.STARTTLS]), Buffer.alloc(0))
          : optionMessage(Option.LIST, Buffer.alloc(0));
      default:
        return optionMessage(random.next(), random.fill(Buffer.alloc(random.below(64))) as Buffer);
    }
  }

  /** What it takes to ask for the status of blocks. */
  #select(): void {
    if (!this.#extended) this.messages.push(optionMessage(Option.STRUCTURED_REPLY, Buffer.alloc(0)));
    this.messages.push(this.#meta(Option.SET_META_CONTEXT));
    if (this.#random.chance(0.3)) this.messages.push(this.#meta(Option.SET_META_CONTEXT));
  }

  #meta(option: number): Message {
    const name = Buffer.from(this.#name());
    const queries = Array.from({ length: this.#random.below(4) }, () => this.#random.pick(QUERIES));
    const data = metaData(name.toString(), queries);
    const fields: Field[] = [
      { at: 0, width: 4 },
      { at: 4 + name.length, width: 4 },
    ];
    let at = 8 + name.length;
    for (const query of queries) {
      fields.push({ at, width: 4 });
      at += counted(query).length;
    }
    return optionMessage(option, data, fields);
  }

  #entry(): Message {
    const name = this.#name();
    this.#size = PLANS.find((plan) => plan.name === name)?.size ?? 0;
    if (!this.#extended && this.#random.chance(0.25)) {
      return optionMessage(Option.EXPORT_NAME, Buffer.from(name));
    }
    const data = infoData(name, this.#random.chance(0.5) ? [] : [0, 3]);
    return optionMessage(Option.GO, data, [
      { at: 0, width: 4 },
      { at: 4 + Buffer.byteLength(name), width: 2 },
    ]);
  }

  #request(): Message {
    const random = this.#random;
    const command = random.pick([0, 0, 0, 1, 1, 1, 3, 4, 5, 6, 6, 7, 7, 7, 8, random.below(65536)]);
    let flags = random.pick(FLAG_SETS);
    if (command === Command.WRITE_ZEROES) flags = random.below(32) & 0x13;
    const size = random.chance(0.9) ? this.#size : random.pick(OPEN_TO_ALL).size;
    const length = random.pick([0, 1, 512, 4096, 5000, 65536, random.below(1 << 18)]);
    // A quarter lies at the end, or a byte to either side of it.
    const edge = size - length + random.pick([0, 0, 1, -1, length, length + 1]);
    const offset = BigInt(Math.max(0, random.chance(0.25) ? edge : random.below(Math.max(1, size - length))));
    if (command === Command.FLUSH) return this.#requestOf(command, flags, 0n, 0n, Buffer.alloc(0));
    if (command === Command.WRITE) {
      const payload = Buffer.alloc(Math.min(length, 20_000), random.below(256));
      if (this.#extended) flags |= CommandFlag.PAYLOAD_LEN;
      return this.#requestOf(command, flags, offset, BigInt(payload.length), payload);
    }
    if (this.#extended && command === Command.BLOCK_STATUS && random.chance(0.4)) {
      const ids = Array.from({ length: random.below(4) }, () => u32(random.below(4)));
      const payload = join(u64(length), ...ids);
      return this.#requestOf(
        command,
        flags | CommandFlag.PAYLOAD_LEN,
        offset,
        BigInt(payload.length),
        payload,
      );
    }
    return this.#requestOf(command, flags, offset, BigInt(length), Buffer.alloc(0));
  }

  #requestOf(command: number, flags: number, offset: bigint, length: bigint, payload: Buffer): Message {
    const extended = this.#extended;
    const head = join(
      u32(extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC),
      u16(flags),
      u16(command),
      u64(this.#cookie++),
      u64(offset),
    );
    const fields: Field[] = [
      { at: 0, width: 4 },
      { at: 4, width: 2 },
      { at: 6, width: 2 },
      { at: 8, width: 8 },
      { at: 16, width: 8 },
      { at: 24, width: extended ? 8 : 4 },
    ];
    const tail = extended ? u64(length) : u32(Number(length));
    return { name: `request ${command}`, bytes: join(head, tail, payload), fields };
  }
}
