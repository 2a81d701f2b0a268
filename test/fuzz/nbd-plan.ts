/** What one case of the NBD fuzzer does: the bytes, in which pieces, over which channel, and how the client behaves. */
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { Option } from '../interop/nbd-conformance/constants.ts';
import { optionHeader } from '../interop/nbd-conformance/negotiation.ts';
import { Conversation } from './nbd-conversation.ts';
import { type Mutated, mutate } from './nbd-mutate.ts';

/** How the client behaves after it has said what it had to say. */
export type Manner =
  /** Reads everything, closes its half, waits for the end. */
  | 'polite'
  /** Goes away as soon as its bytes are sent. */
  | 'vanishes'
  /** Goes away in the middle. */
  | 'breaks-off'
  /** Reads nothing for a while, then everything. */
  | 'deaf'
  /** Reads nothing, then goes away. */
  | 'deaf-vanishes';

const MANNERS: readonly Manner[] = [
  'polite',
  'polite',
  'polite',
  'polite',
  'vanishes',
  'breaks-off',
  'deaf',
  'deaf-vanishes',
];

export type Channel =
  | 'plain'
  /** To the server that wants TLS, in plain behind STARTTLS: nothing of it may be answered. */
  | 'injected'
  /** Under TLS, after a right handshake. */
  | 'tls';

export interface Plan extends Mutated {
  readonly manner: Manner;
  /** Ends of the pieces in which the bytes are written. */
  readonly cuts: readonly number[];
  readonly channel: Channel;
  /** Clients that do the same at the same time. */
  readonly others: readonly Plan[];
}

/** Case `index` of a seed is always the same. */
export function planOf(seed: string, index: number): Plan {
  const random = new SeededRandom(`${seed}/${index}`);
  const others = random.pick([0, 0, 0, 0, 0, 0, 0, 1, 3]);
  return {
    ...planFrom(random),
    others: Array.from({ length: others }, (_, other) => planFrom(random.fork(`with ${other}`))),
  };
}

function planFrom(random: SeededRandom): Plan {
  const mutated = mutate(new Conversation(random), random);
  const drawn = random.below(100);
  const channel: Channel = drawn < 7 ? 'injected' : drawn < 11 ? 'tls' : 'plain';
  const changed = channel === 'injected' ? behindStartTls(mutated) : mutated;
  return { ...changed, manner: random.pick(MANNERS), cuts: cutsOf(changed, random), channel, others: [] };
}

/** Client flags, STARTTLS, and behind it in plain what should only be said under TLS. */
function behindStartTls({ bytes, description, seams }: Mutated): Mutated {
  const start = Buffer.concat([bytes.subarray(0, 4), optionHeader(Option.STARTTLS, 0)]);
  return {
    bytes: Buffer.concat([start, bytes.subarray(4)]),
    description: `STARTTLS, then in plain: ${description}`,
    seams: seams.map((seam) => seam + 16),
  };
}

function cutsOf({ bytes, seams }: Mutated, random: SeededRandom): number[] {
  const style = random.below(5);
  if (style === 0 || bytes.length === 0) return [];
  if (style === 1) return seams.filter(() => random.chance(0.7));
  if (style === 2) {
    // Byte by byte somewhere.
    const from = random.below(bytes.length);
    return Array.from({ length: random.below(40) }, (_, index) => from + index + 1).filter(
      (cut) => cut < bytes.length,
    );
  }
  const cuts = Array.from({ length: 1 + random.below(6) }, () => random.below(bytes.length));
  return [...new Set(cuts)].sort((a, b) => a - b);
}

/** Ends of the pieces that are sent; a client that breaks off sends the first half of them. */
export function piecesOf({ bytes, cuts, manner }: Plan): number[] {
  const ends = [...cuts, bytes.length];
  return manner === 'breaks-off' ? ends.slice(0, Math.floor(ends.length / 2)) : ends;
}

/** All that reaches the server if it listens to the end. */
export const sentBytes = (plan: Plan): Buffer => plan.bytes.subarray(0, piecesOf(plan).at(-1) ?? 0);
