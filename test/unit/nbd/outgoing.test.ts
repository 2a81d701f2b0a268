/** How answers leave: in their order, a batch at a time, and nobody is left without word. */
import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { systemEnvironment } from '../../../src/environment.js';
import { Outgoing } from '../../../src/nbd/server/outgoing.js';

const MIB = 2 ** 20;

/** A stream that takes a batch over when it is told to. */
class Sink extends Duplex {
  /** What each call was given. */
  readonly batches: Buffer[] = [];
  #taken: (() => void) | undefined;

  override _read(): void {
    // Nothing comes from the peer.
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.batches.push(Buffer.concat(chunks.map(({ chunk }) => chunk)));
    this.#taken = done;
  }

  async takeOver(): Promise<void> {
    const taken = this.#taken;
    this.#taken = undefined;
    taken?.();
    await turn();
  }
}

function outgoing() {
  const stream = new Sink();
  const released: string[] = [];
  const counts = { sent: 0 };
  const out = new Outgoing(stream, systemEnvironment.clock, () => counts.sent++);
  const send = (name: string, length: number, counted = true) =>
    out.send(Buffer.alloc(length, name), counted ? () => released.push(name) : undefined);
  return { stream, out, send, released, counts };
}

const summary = (bytes: Buffer) => bytes.toString('latin1').replaceAll(/(.)\1*/g, '$1');

test('what one turn has to answer leaves together, in its order', async () => {
  const { stream, out, send, released } = outgoing();
  send('a', 16);
  send('b', 100_000);
  send('c', 16);
  expect(out.looseBytes).toBe(32);
  await turn();
  expect(stream.batches.map(summary)).toEqual(['abc']);
  expect(out.waitingSince).toBeTypeOf('number');
  expect(released).toEqual(['a', 'c']);
  await stream.takeOver();
  expect(released).toEqual(['a', 'c', 'b']);
  expect(out.looseBytes).toBe(0);
  expect(out.waitingSince).toBeUndefined();
});

test('of long answers the stream gets one after the other, and their memory comes back as each has left', async () => {
  const { stream, send, released, counts } = outgoing();
  for (const name of 'abc') send(name, MIB);
  await turn();
  expect(stream.batches.map(summary)).toEqual(['a']);
  await stream.takeOver();
  expect(released).toEqual(['a']);
  expect(stream.batches.map(summary)).toEqual(['a', 'b']);
  await stream.takeOver();
  await stream.takeOver();
  expect(released).toEqual(['a', 'b', 'c']);
  expect(stream.batches.map(summary)).toEqual(['a', 'b', 'c']);
  expect(counts.sent).toBe(3);
});

test('short answers that come while a batch is being sent leave together with the next', async () => {
  const { stream, out, send } = outgoing();
  send('a', MIB);
  await turn();
  for (const name of 'bcd') {
    send(name, 16, false);
    await turn();
  }
  expect(stream.batches).toHaveLength(1);
  expect(out.looseBytes).toBe(48);
  await stream.takeOver();
  expect(stream.batches.map(summary)).toEqual(['a', 'bcd']);
  await stream.takeOver();
  expect(out.looseBytes).toBe(0);
});

test('an answer that a release brings about does not overtake what waits', async () => {
  const { stream, out, send } = outgoing();
  out.send(Buffer.alloc(MIB, 'a'), () => send('c', 16));
  send('b', MIB);
  await turn();
  await stream.takeOver();
  await stream.takeOver();
  await stream.takeOver();
  expect(stream.batches.map(summary).join('')).toBe('abc');
});

test('at the end everything is handed over, whatever is being sent', async () => {
  const { stream, out, send, released } = outgoing();
  for (const name of 'abcd') send(name, MIB);
  await turn();
  out.flush();
  stream.end();
  for (let i = 0; i < 4; i++) await stream.takeOver();
  expect(released).toEqual(['a', 'b', 'c', 'd']);
  expect(stream.batches.map(summary).join('')).toBe('abcd');
});

test('a stream that is gone takes nothing, and all memory comes back', async () => {
  const { stream, out, send, released, counts } = outgoing();
  for (const name of 'abc') send(name, MIB);
  await turn();
  stream.destroy();
  await stream.takeOver();
  send('d', MIB);
  send('e', 16, false);
  await turn();
  expect(out.isOver).toBe(true);
  expect(released).toEqual(['a', 'b', 'c', 'd']);
  expect(out.looseBytes).toBe(0);
  expect(out.waitingSince).toBeUndefined();
  expect(counts.sent).toBeGreaterThan(0);
});
