/** Damage to a conversation: fields, order, bytes, ends. Small mistakes are likelier than noise. */
import type { SeededRandom } from '../../src/testing/seeded-random.ts';
import { Conversation, type Field, type Message } from './nbd-conversation.ts';

export interface Mutated {
  readonly bytes: Buffer;
  readonly description: string;
  /** Ends of messages in `bytes`, where no mutation moved them; places worth cutting at. */
  readonly seams: readonly number[];
}

const BIG = [
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0xfffffe00n,
  1n << 25n,
  (1n << 25n) + 1n,
  1n << 32n,
  1n << 53n,
  (1n << 53n) + 1n,
  (1n << 63n) - 1n,
  1n << 63n,
  (1n << 64n) - 1n,
  (1n << 64n) - 1024n,
];

function interestingValue(random: SeededRandom, old: bigint): bigint {
  switch (random.below(6)) {
    case 0:
      return old + BigInt(random.pick([1, -1, 2, -2, 4, -4, 8, 16, 512]));
    case 1:
      return BigInt(random.pick([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]));
    case 2:
      return random.pick(BIG);
    case 3:
      return old ^ (1n << BigInt(random.below(64)));
    case 4:
      return BigInt(random.below(1 << 22));
    default:
      return (BigInt(random.next()) << 32n) | BigInt(random.next());
  }
}

function readField(bytes: Buffer, { at, width }: Field): bigint {
  if (width === 8) return bytes.readBigUInt64BE(at);
  return BigInt(bytes.readUIntBE(at, width));
}

function writeField(bytes: Buffer, { at, width }: Field, value: bigint): void {
  const masked = BigInt.asUintN(width * 8, value);
  if (width === 8) bytes.writeBigUInt64BE(masked, at);
  else bytes.writeUIntBE(Number(masked), at, width);
}

type Mutation = (messages: Message[], random: SeededRandom) => string;

/** Requests more often than what comes before them: damage there ends most conversations. */
function somewhere(messages: readonly Message[], random: SeededRandom): number {
  const requests = messages.findIndex(({ name }) => name.startsWith('request'));
  if (requests === -1 || random.chance(0.4)) return random.below(messages.length);
  return random.between(requests, messages.length - 1);
}

const setField: Mutation = (messages, random) => {
  const index = somewhere(messages, random);
  const message = messages[index];
  if (message === undefined || message.fields.length === 0) return 'nothing';
  const field = random.pick(message.fields);
  if (field.at + field.width > message.bytes.length) return 'nothing';
  const bytes = Buffer.from(message.bytes);
  const value = interestingValue(random, readField(bytes, field));
  writeField(bytes, field, value);
  messages[index] = { ...message, bytes };
  return `${message.name} (${index}): field at ${field.at} = ${value}`;
};

const flipBit: Mutation = (messages, random) => {
  const index = somewhere(messages, random);
  const message = messages[index];
  if (message === undefined || message.bytes.length === 0) return 'nothing';
  const bytes = Buffer.from(message.bytes);
  const at = random.below(bytes.length);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
  messages[index] = { ...message, bytes };
  return `${message.name} (${index}): bit in byte ${at}`;
};

const remove: Mutation = (messages, random) => {
  const index = somewhere(messages, random);
  return `without ${messages.splice(index, 1)[0]?.name} (${index})`;
};

const repeat: Mutation = (messages, random) => {
  const index = somewhere(messages, random);
  const message = messages[index];
  if (message === undefined) return 'nothing';
  const times = random.pick([1, 1, 2, 30]);
  messages.splice(index, 0, ...Array.from({ length: times }, () => message));
  return `${message.name} (${index}) ${times} times more`;
};

const swap: Mutation = (messages, random) => {
  const [a, b] = [somewhere(messages, random), somewhere(messages, random)];
  const [one, other] = [messages[a], messages[b]];
  if (one === undefined || other === undefined) return 'nothing';
  messages[a] = other;
  messages[b] = one;
  return `${a} and ${b} swapped`;
};

const noise: Mutation = (messages, random) => {
  const index = random.below(messages.length + 1);
  const bytes = Buffer.alloc(random.pick([1, 2, 4, 16, 28, 100, 3000]));
  random.fill(bytes);
  messages.splice(index, 0, { name: 'noise', bytes, fields: [] });
  return `${bytes.length} bytes of noise before ${index}`;
};

const cut: Mutation = (messages, random) => {
  const index = somewhere(messages, random);
  const message = messages[index];
  if (message === undefined || message.bytes.length === 0) return 'nothing';
  const from = random.below(message.bytes.length);
  const to = Math.min(message.bytes.length, from + 1 + random.below(16));
  const bytes = Buffer.concat([message.bytes.subarray(0, from), message.bytes.subarray(to)]);
  messages[index] = {
    ...message,
    bytes,
    fields: message.fields.filter(({ at, width }) => at + width <= from),
  };
  return `${message.name} (${index}) without bytes ${from} to ${to}`;
};

const truncate: Mutation = (messages, random) => {
  const index = somewhere(messages, random);
  const message = messages[index];
  if (message === undefined) return 'nothing';
  const length = random.below(message.bytes.length + 1);
  messages.splice(index, messages.length, {
    ...message,
    bytes: message.bytes.subarray(0, length),
    fields: message.fields.filter(({ at, width }) => at + width <= length),
  });
  return `ends ${length} bytes into ${message.name} (${index})`;
};

const splice: Mutation = (messages, random) => {
  const other = new Conversation(random.fork('other')).messages;
  const from = random.below(other.length);
  const index = random.below(messages.length + 1);
  messages.splice(index, 0, ...other.slice(from));
  return `part ${from} of another conversation before ${index}`;
};

const MUTATIONS: readonly Mutation[] = [
  setField,
  setField,
  setField,
  setField,
  setField,
  flipBit,
  remove,
  repeat,
  swap,
  noise,
  cut,
  truncate,
  splice,
];

export function mutate(conversation: Conversation, random: SeededRandom): Mutated {
  const messages = [...conversation.messages];
  const told: string[] = [];
  const times = random.pick([0, 1, 1, 1, 1, 1, 2, 2, 3, 8]);
  for (let count = 0; count < times && messages.length > 0; count++)
    told.push(random.pick(MUTATIONS)(messages, random));
  const seams: number[] = [];
  let at = 0;
  for (const { bytes } of messages) {
    at += bytes.length;
    seams.push(at);
  }
  return {
    bytes: Buffer.concat(messages.map(({ bytes }) => bytes)),
    description: `${conversation.messages.map(({ name }) => name).join(', ')}; ${told.join('; ')}`,
    seams,
  };
}
