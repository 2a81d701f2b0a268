/** The crash model step by step, without a scheduler: orders that are rare by chance are made on purpose. */
import { describe, expect, test } from 'vitest';
import { CachedContent, type Change, SeededRandom } from '../../../src/testing/index.js';

const SECTOR = 512;
const filled = (value: number, sectors = 1) => new Uint8Array(sectors * SECTOR).fill(value);
const values = (bytes: Uint8Array) =>
  Array.from({ length: bytes.byteLength / SECTOR }, (_, sector) => bytes[sector * SECTOR]).join('');

const seen = (content: CachedContent) => {
  const bytes = new Uint8Array(content.size);
  content.read(0, bytes);
  return values(bytes);
};
const durable = (content: CachedContent) => values(content.durableBytes(0, content.durableSize));

/** A write that took effect, but did not complete. */
function taken(content: CachedContent, sector: number, value: number, sectors = 1): Change {
  const change = content.beginWrite(sector * SECTOR, filled(value, sectors));
  content.take(change);
  return change;
}
const write = (content: CachedContent, sector: number, value: number, sectors = 1) =>
  content.acknowledge(taken(content, sector, value, sectors));
function resize(content: CachedContent, sectors: number): void {
  const change = content.beginResize(sectors * SECTOR);
  content.take(change);
  content.acknowledge(change);
}
const flush = (content: CachedContent) => content.makeDurable(content.flushPoint());
const lose = () => () => false;

describe('CachedContent', () => {
  test('a flush takes what completed before it began, and nothing else', () => {
    const content = new CachedContent(4 * SECTOR);
    write(content, 0, 1);
    const inFlight = taken(content, 1, 2);
    const point = content.flushPoint();
    write(content, 2, 3);
    content.acknowledge(inFlight);
    content.makeDurable(point);
    expect(durable(content)).toBe('1000');
    expect(seen(content)).toBe('1230');
    expect(content.unflushed().length).toBe(2);
    content.cutPower(lose);
    expect(seen(content)).toBe('1000');
  });

  test('durable gets the older version when a younger one completed after the flush began', () => {
    const content = new CachedContent(SECTOR);
    write(content, 0, 1);
    const point = content.flushPoint();
    write(content, 0, 2);
    content.makeDurable(point);
    expect([durable(content), seen(content)]).toEqual(['1', '2']);
    content.cutPower(lose);
    expect(seen(content)).toBe('1');
  });

  test('an older write that completes after a younger one was flushed never covers it', () => {
    for (const partly of [false, true]) {
      const content = new CachedContent(2 * SECTOR);
      const older = taken(content, 0, 1, 2);
      write(content, 0, 2, partly ? 1 : 2);
      flush(content);
      content.acknowledge(older);
      flush(content);
      expect(durable(content)).toBe(seen(content));
      expect(seen(content)).toBe(partly ? '21' : '22');
    }
  });

  test('changes at a crash land in the order of their effects', () => {
    const content = new CachedContent(SECTOR);
    const first = content.beginWrite(0, filled(1));
    const second = content.beginWrite(0, filled(2));
    content.take(second);
    content.take(first);
    content.cutPower(() => () => true);
    expect(seen(content)).toBe('1');
  });

  test('an older write behind a shrink never comes back through a later growth', () => {
    const content = new CachedContent(2 * SECTOR);
    const older = taken(content, 1, 1);
    resize(content, 1);
    resize(content, 2);
    flush(content);
    content.acknowledge(older);
    flush(content);
    expect([durable(content), seen(content)]).toEqual(['00', '00']);
  });

  test('a write behind a growth that was lost leaves nothing for the next growth to show', () => {
    const content = new CachedContent(SECTOR);
    resize(content, 2);
    write(content, 1, 1);
    content.cutPower((change) => () => change.kind === 'write');
    expect(seen(content)).toBe('0');
    resize(content, 2);
    expect(seen(content)).toBe('00');
    flush(content);
    expect(durable(content)).toBe('00');
  });

  test('the same for a growth that a failed flush forgot', () => {
    for (const kept of ['write', 'none']) {
      const content = new CachedContent(SECTOR);
      resize(content, 2);
      write(content, 1, 1);
      content.forget(content.flushPoint(), (change) => () => change.kind === kept);
      expect(seen(content)).toBe('01');
      content.dropForgotten();
      expect(seen(content)).toBe('0');
      resize(content, 2);
      expect(seen(content)).toBe('00');
      flush(content);
      expect(durable(content)).toBe('00');
    }
  });

  test('what is written after a failed flush is not forgotten with the rest', () => {
    const content = new CachedContent(3 * SECTOR);
    write(content, 0, 1, 3);
    content.forget(content.flushPoint(), () => (sector) => sector === 2);
    write(content, 1, 2);
    content.dropForgotten();
    expect(seen(content)).toBe('021');
    flush(content);
    expect(durable(content)).toBe('021');
  });

  test('a shrink and a growth after a failed flush stand when the disk is opened again', () => {
    const content = new CachedContent(2 * SECTOR);
    write(content, 0, 1, 2);
    flush(content);
    write(content, 0, 2);
    content.forget(content.flushPoint(), lose);
    resize(content, 1);
    resize(content, 2);
    content.dropForgotten();
    expect(seen(content)).toBe('10');
    flush(content);
    expect(durable(content)).toBe('10');
  });

  test('the same when it was a shrink that was forgotten', () => {
    const content = new CachedContent(2 * SECTOR);
    write(content, 0, 1, 2);
    flush(content);
    resize(content, 1);
    content.forget(content.flushPoint(), lose);
    for (const sectors of [2, 1, 2]) resize(content, sectors);
    content.dropForgotten();
    expect(seen(content)).toBe('10');
    flush(content);
    expect(durable(content)).toBe('10');
  });

  test('a write behind a growth that was forgotten is gone with it', () => {
    const content = new CachedContent(SECTOR);
    resize(content, 2);
    content.forget(content.flushPoint(), lose);
    write(content, 1, 1);
    content.dropForgotten();
    expect(seen(content)).toBe('0');
    resize(content, 2);
    expect(seen(content)).toBe('00');
    flush(content);
    expect(durable(content)).toBe('00');
  });

  test('a write whose whole range was cut off meanwhile changes nothing', () => {
    const content = new CachedContent(4 * SECTOR);
    const gone = content.beginWrite(2 * SECTOR, filled(1, 2));
    resize(content, 1);
    content.take(gone);
    content.acknowledge(gone);
    resize(content, 4);
    expect(seen(content)).toBe('0000');
  });

  test('a write whose range was cut off meanwhile changes only what is left', () => {
    const content = new CachedContent(4 * SECTOR);
    const whole = content.beginWrite(2 * SECTOR, filled(1, 2));
    const gone = content.beginWrite(3 * SECTOR, filled(1));
    resize(content, 3);
    content.take(whole);
    content.take(gone);
    content.acknowledge(whole);
    content.acknowledge(gone);
    resize(content, 4);
    expect(seen(content)).toBe('0010');
    flush(content);
    expect(durable(content)).toBe('0010');
  });

  test('rot is where the bytes are: cache, medium, and changes in between, but not in the buffers of others', () => {
    const content = new CachedContent(SECTOR);
    const bytes = filled(0);
    const change = content.beginWrite(0, bytes);
    content.take(change);
    content.flipBit(10, 3);
    content.acknowledge(change);
    expect(bytes[10]).toBe(0);
    flush(content);
    expect(content.durableBytes(10, 1)).toEqual(Uint8Array.of(8));
    const found = new Uint8Array(1);
    content.read(10, found);
    expect(found[0]).toBe(8);
  });

  test('copies made one after the other are equal to it each time', () => {
    const SECTORS = 24;
    const random = new SeededRandom('copies');
    const steps: ((content: CachedContent) => void)[] = [];
    const content = new CachedContent(SECTORS * SECTOR);
    for (let round = 0; round < 150; round++) {
      const [at, value, kind] = [random.below(SECTORS - 3), random.below(9) + 1, random.below(16)];
      const step = (other: CachedContent) => {
        if (kind === 0) resize(other, SECTORS - (value % 3));
        else if (kind < 4) flush(other);
        else if (kind === 4) other.kill(lose);
        else if (kind === 5) other.beginWrite(at * SECTOR, filled(value));
        else if (kind === 6) other.cutPower(() => (sector) => sector % 2 === value % 2);
        else write(other, at, value, 1 + (value % 3));
      };
      steps.push(step);
      step(content);
      if (random.chance(0.5)) continue;
      // Two of them, as a run saves one and looks at several outcomes of it.
      const saved = content.copy();
      for (const part of [2, 3]) {
        const again = new CachedContent(SECTORS * SECTOR);
        for (const done of steps) done(again);
        const copy = saved.copy();
        expect([seen(copy), durable(copy), copy.size]).toEqual([seen(again), durable(again), again.size]);
        const keep = () => (sector: number) => sector % part === 0;
        for (const other of [copy, again]) {
          write(other, value % 7, 9, 2);
          other.cutPower(keep);
        }
        expect([seen(copy), durable(copy)]).toEqual([seen(again), durable(again)]);
      }
    }
  });
});
