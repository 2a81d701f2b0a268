/** What a right server makes of the bytes that a client sent, from the protocol document alone. */
import { Fields } from '../interop/nbd-conformance/bytes.ts';
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_MAGIC,
  NO_ZEROES,
  OPTION_MAGIC,
  Option,
  REQUEST_MAGIC,
} from '../interop/nbd-conformance/constants.ts';
import type { Style } from '../interop/nbd-conformance/transmission.ts';
import { type ExportPlan, PLANS } from './nbd-exports.ts';

/** `any` where the document leaves it to the server. */
export type Expected = 'success' | 'error' | 'any';

export interface ExpectedOption {
  readonly option: number;
  readonly final: Expected;
}

export interface ExpectedRequest {
  readonly command: number;
  readonly flags: number;
  readonly offset: bigint;
  readonly length: bigint;
  readonly cookie: bigint;
  readonly outcome: Expected;
}

export interface Understanding {
  /** The client's flags are known ones. */
  readonly greeted: boolean;
  readonly options: readonly ExpectedOption[];
  /** After the options: how transmission began. */
  readonly entry?: {
    readonly plan: ExportPlan;
    readonly style: Style;
    /** Zeroes due after EXPORT_NAME; undefined after GO. */
    readonly zeroes?: number;
    /** Contexts set for this export by the last SET_META_CONTEXT, which is this option; -1: none. */
    readonly contextsFrom: number;
  };
  readonly requests: readonly ExpectedRequest[];
  /** The server may close at once, without answering what came before. */
  readonly dropped: boolean;
  /** The server closes by itself, whatever the client sends after that. */
  readonly closes: boolean;
}

export interface ModelLimits {
  readonly optionBytes: number;
  readonly skippedBytes: number;
  readonly payloadBytes: number;
}

export function understand(sent: Buffer, limits: ModelLimits): Understanding {
  return new Reading(sent, limits).all();
}

const isString = (bytes: Buffer): boolean =>
  bytes.length <= 4096 && !bytes.includes(0) && Buffer.from(bytes.toString('utf8')).equals(bytes);

class Reading {
  readonly #fields: Fields;
  readonly #limits: ModelLimits;
  readonly #options: ExpectedOption[] = [];
  readonly #requests: ExpectedRequest[] = [];
  #style: Style = 'simple';
  #contexts: { readonly name: string; readonly index: number } | undefined;
  #clientFlags = 0;
  #dropped = false;
  #closes = false;

  constructor(sent: Buffer, limits: ModelLimits) {
    this.#fields = new Fields(sent);
    this.#limits = limits;
  }

  all(): Understanding {
    if (this.#fields.left < 4) return this.#result(false);
    this.#clientFlags = this.#fields.u32();
    if (this.#clientFlags > 3) {
      this.#closes = true;
      return this.#result(false);
    }
    const entry = this.#negotiate();
    if (entry !== undefined) this.#transmit(entry);
    return this.#result(true, entry);
  }

  #result(greeted: boolean, entry?: Understanding['entry']): Understanding {
    const result = {
      greeted,
      options: this.#options,
      requests: this.#requests,
      dropped: this.#dropped,
      closes: this.#closes,
    };
    return entry === undefined ? result : { ...result, entry };
  }

  #negotiate(): Understanding['entry'] | undefined {
    const fields = this.#fields;
    while (fields.left >= 16) {
      if (fields.u64() !== OPTION_MAGIC) return this.#close();
      const option = fields.u32();
      const length = fields.u32();
      if (length > this.#limits.skippedBytes) return this.#close();
      if (length > fields.left) return undefined;
      const data = fields.take(length);
      const isLong = length > this.#limits.optionBytes;
      if (option === Option.EXPORT_NAME) {
        const plan = PLANS.find(({ name }) => Buffer.from(name).equals(data));
        if (isLong || plan === undefined || this.#style === 'extended') return this.#close();
        const zeroes = (this.#clientFlags & NO_ZEROES) === 0 ? 124 : 0;
        return { plan, style: this.#style, zeroes, contextsFrom: this.#contextsFor(plan) };
      }
      if (isLong) {
        this.#options.push({ option, final: 'error' });
        continue;
      }
      const { final, plan } = this.#option(option, data);
      this.#options.push({ option, final });
      if (option === Option.ABORT) return this.#close();
      if (option === Option.GO && plan !== undefined)
        return { plan, style: this.#style, contextsFrom: this.#contextsFor(plan) };
    }
    return undefined;
  }

  #close(): undefined {
    this.#closes = true;
    return undefined;
  }

  #contextsFor(plan: ExportPlan): number {
    return this.#contexts?.name === plan.name ? this.#contexts.index : -1;
  }

  #option(option: number, data: Buffer): { final: Expected; plan?: ExportPlan } {
    switch (option) {
      case Option.ABORT:
        return { final: 'success' };
      case Option.LIST:
        return { final: data.length === 0 ? 'success' : 'error' };
      case Option.STRUCTURED_REPLY:
        if (data.length > 0 || this.#style === 'extended') return { final: 'error' };
        this.#style = 'structured';
        return { final: 'success' };
      case Option.EXTENDED_HEADERS:
        if (data.length > 0) return { final: 'error' };
        this.#style = 'extended';
        return { final: 'success' };
      case Option.INFO:
      case Option.GO: {
        const plan = this.#planOf(infoName(data));
        return plan === undefined ? { final: 'error' } : { final: 'success', plan };
      }
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
        return { final: this.#metaContext(option, data) };
      default:
        return { final: 'error' };
    }
  }

  #metaContext(option: number, data: Buffer): Expected {
    const sets = option === Option.SET_META_CONTEXT;
    if (sets) this.#contexts = undefined;
    if (this.#style === 'simple') return sets ? 'error' : 'any';
    const plan = this.#planOf(metaName(data));
    if (plan === undefined) return 'error';
    if (sets) this.#contexts = { name: plan.name, index: this.#options.length };
    return 'success';
  }

  #planOf(name: string | undefined): ExportPlan | undefined {
    return PLANS.find((plan) => plan.name === name);
  }

  #transmit({ plan, style, contextsFrom }: NonNullable<Understanding['entry']>): void {
    const extended = style === 'extended';
    const fields = this.#fields;
    while (fields.left >= (extended ? 32 : 28)) {
      if (fields.u32() !== (extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC)) {
        this.#dropped = true;
        this.#closes = true;
        return;
      }
      const flags = fields.u16();
      const command = fields.u16();
      const cookie = fields.u64();
      const offset = fields.u64();
      const length = extended ? fields.u64() : BigInt(fields.u32());
      const carries = command === Command.WRITE || (extended && (flags & CommandFlag.PAYLOAD_LEN) !== 0);
      if (command === Command.DISC && !carries) {
        this.#closes = true;
        return;
      }
      if (carries && length > BigInt(this.#limits.payloadBytes)) {
        this.#dropped = true;
        this.#closes = true;
        return;
      }
      if (carries && Number(length) > fields.left) return;
      const payload = carries ? fields.take(Number(length)) : Buffer.alloc(0);
      const request = { command, flags, offset, length, cookie };
      const outcome = outcomeOf(request, payload, plan, style, contextsFrom);
      this.#requests.push({ ...request, outcome });
    }
  }
}

/** The name in the data of INFO or GO, if it is well-formed. */
function infoName(data: Buffer): string | undefined {
  if (data.length < 6) return undefined;
  const length = data.readUInt32BE();
  if (length > data.length - 6) return undefined;
  const name = data.subarray(4, 4 + length);
  const count = data.readUInt16BE(4 + length);
  if (data.length !== 6 + length + 2 * count || !isString(name)) return undefined;
  return name.toString();
}

function metaName(data: Buffer): string | undefined {
  const fields = new Fields(data);
  try {
    const name = fields.take(fields.u32());
    if (!isString(name)) return undefined;
    for (let count = fields.u32(); count > 0; count--)
      if (!isString(fields.take(fields.u32()))) return undefined;
    return fields.left === 0 ? name.toString() : undefined;
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

const { READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = Command;
const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = CommandFlag;
const ALLOWED: Readonly<Record<number, number>> = {
  [READ]: FUA,
  [WRITE]: FUA,
  [FLUSH]: FUA,
  [TRIM]: FUA,
  [CACHE]: FUA,
  [WRITE_ZEROES]: FUA | NO_HOLE | FAST_ZERO,
  [BLOCK_STATUS]: FUA | REQ_ONE,
};

function outcomeOf(
  { command, flags, offset, length }: Omit<ExpectedRequest, 'outcome'>,
  payload: Buffer,
  plan: ExportPlan,
  style: Style,
  contextsFrom: number,
): Expected {
  const extended = style === 'extended';
  let allowed = ALLOWED[command];
  if (allowed === undefined) return 'error';
  if (command === READ && style !== 'simple') allowed |= DF;
  if (extended && (command === WRITE || command === BLOCK_STATUS)) allowed |= PAYLOAD_LEN;
  if ((flags & ~allowed) !== 0) return 'error';
  const size = BigInt(plan.size);
  if (command === FLUSH) return offset === 0n && length === 0n ? 'success' : 'any';
  if (!plan.writable && (command === WRITE || command === WRITE_ZEROES || command === TRIM)) return 'error';
  let effect = length;
  if (command === BLOCK_STATUS) {
    if (contextsFrom === -1) return 'error';
    if ((flags & PAYLOAD_LEN) !== 0) {
      // Which ids were given out, the model does not know.
      if (payload.length < 12 || payload.length % 4 !== 0) return payload.length === 8 ? 'any' : 'error';
      effect = payload.readBigUInt64BE();
      return offset + effect > size ? 'error' : 'any';
    }
  }
  if (offset + effect > size) return 'error';
  const { broken } = plan;
  const touches =
    broken !== undefined && offset < BigInt(broken.end) && offset + effect > BigInt(broken.start);
  if (touches || effect === 0n) return 'any';
  // A broken device under a flush, odd flags on CACHE, fast zeroes that are not fast: the server may say no.
  if (command === CACHE || (flags & FAST_ZERO) !== 0) return 'any';
  return 'success';
}
