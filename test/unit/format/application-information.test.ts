import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InvalidArgumentError, LimitError } from '../../../src/errors.ts';
import {
  type ApplicationInformation,
  decodeApplicationInformation,
  decodeApplicationInformationBlock,
  encodeApplicationInformation,
  encodeApplicationInformationBlock,
  informationOf,
} from '../../../src/format/application-information.ts';
import { viewOf } from '../../../src/format/binary.ts';
import { sealBlock } from '../../../src/format/extension.ts';
import { context, foreignContext, guids, ours, survivesAnyBytes, u32, windows } from './fixtures.ts';

const names = fc.string({ unit: 'binary', maxLength: 200 });
const informations: fc.Arbitrary<ApplicationInformation> = fc.record({
  unknownId: guids,
  snapshotId: guids,
  setId: guids,
  context: u32,
  provider: u32,
  attributes: u32,
  originatingMachine: names,
  serviceMachine: names,
  label: fc.option(fc.string({ unit: 'grapheme', maxLength: 200 }), { nil: undefined }),
  agentBytes: fc.option(fc.uint8Array({ maxLength: 5000 }), { nil: undefined }),
});
const plain = informationOf('4e3c03c2-7bc6-4288-ad96-c1eac1a55f71', '0a4e3901-6abb-48fc-95c2-6ab9e38e9e71');
/** 64 bytes, two empty names, and what is given. */
const payloadWith = (...tail: number[]): Uint8Array => Uint8Array.from([...new Uint8Array(68), ...tail]);
const label = [0x56, 0x53, 0x6c, 0x62];

describe('application information', () => {
  test('comes back as it was, ours and in a block of Windows', () => {
    fc.assert(
      fc.property(informations, (information) => {
        expect(decodeApplicationInformation(encodeApplicationInformation(information), context)).toEqual(
          information,
        );
        for (const place of [ours, windows]) {
          const block = encodeApplicationInformationBlock(place, information);
          expect(decodeApplicationInformationBlock(block, context).information).toEqual(information);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('of Windows reads as vshadowinfo shows it', () => {
    const text =
      '37939aae4800d64e987471500654b7b3c2033c4ec67b8842ad96c1eac1a55f7101394e0abb6afc4895c26ab9e38e9e71' +
      '0900000001000000090042000000000010 0069006e00660069006e00690074007900 100069006e00660069006e0069007400790000'.replaceAll(
        ' ',
        '',
      );
    const payload = new Uint8Array(16_256);
    payload.set(Buffer.from(text, 'hex'));
    expect(decodeApplicationInformation(payload, foreignContext)).toEqual({
      unknownId: 'ae9a9337-0048-4ed6-9874-71500654b7b3',
      snapshotId: '4e3c03c2-7bc6-4288-ad96-c1eac1a55f71',
      setId: '0a4e3901-6abb-48fc-95c2-6ab9e38e9e71',
      context: 9,
      provider: 1,
      attributes: 0x0042_0009,
      originatingMachine: 'infinity',
      serviceMachine: 'infinity',
      label: undefined,
      agentBytes: undefined,
    });
  });

  test('fills a block to the last byte, and one more is refused by name and number', () => {
    const full = { ...plain, agentBytes: new Uint8Array(16_256 - 68 - 8).fill(1) };
    expect(encodeApplicationInformation(full).byteLength).toBe(16_256);
    const block = encodeApplicationInformationBlock(ours, full);
    expect(decodeApplicationInformationBlock(block, context).information).toEqual(full);
    const over = { ...full, label: '' };
    expect(() => encodeApplicationInformation(over)).toThrow(LimitError);
    expect(() => encodeApplicationInformation(over)).toThrow(
      "application information takes 16264 bytes, must be at most 16256; shorten the label or the agent's bytes by 8",
    );
  });

  test.each<[string, Uint8Array, string]>([
    ['nothing', new Uint8Array(0), 'application information length is 0x0, must be at least 64 bytes'],
    ['no names', new Uint8Array(64), 'originating machine: end is 0x42, must be within the 64 bytes'],
    [
      'half a UTF-16 unit',
      new Uint8Array(100).fill(3, 64, 65),
      'originating machine: length is 0x3, must be even',
    ],
    [
      'a name beyond the end',
      new Uint8Array(100).fill(36, 64, 65),
      'originating machine: length is 0x24, must be within the 100 bytes',
    ],
    [
      'a second name beyond the end',
      new Uint8Array(100).fill(34, 66, 67),
      'service machine: length is 0x22, must be within the 100 bytes',
    ],
    ['half a section', payloadWith(1, 2, 3), 'information section: end is 0x4c, must be within 71 bytes'],
    [
      'a section beyond the end',
      payloadWith(...label, 2, 0, 0, 0, 65),
      'information section 0x626c5356: length is 0x2, must be within 77 bytes',
    ],
    [
      'a section twice',
      payloadWith(...label, 0, 0, 0, 0, ...label, 0, 0, 0, 0),
      'information section is 0x626c5356, must be there only once',
    ],
    [
      'a label that is no text',
      payloadWith(...label, 1, 0, 0, 0, 0xff),
      'block at offset 0x14000: snapshot label is no UTF-8 text',
    ],
  ])('with %s is refused', (_, payload, message) => {
    expect(() => decodeApplicationInformation(payload, context)).toThrow(message);
  });

  test('of ours: a section from a later version is passed over', () => {
    const payload = payloadWith(1, 2, 3, 4, 2, 0, 0, 0, 9, 9, ...label, 1, 0, 0, 0, 65);
    expect(decodeApplicationInformation(payload, context).label).toBe('A');
  });

  test('of Windows: whatever follows the names is passed over', () => {
    const payload = payloadWith(1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff, 7);
    expect(decodeApplicationInformation(payload, foreignContext).label).toBeUndefined();
    expect(decodeApplicationInformation(new Uint8Array(64), foreignContext).originatingMachine).toBe('');
  });

  test('keeps a machine name that is half a surrogate pair, and refuses such a label', () => {
    const odd = { ...plain, serviceMachine: 'a\ud800b' };
    expect(decodeApplicationInformation(encodeApplicationInformation(odd), context)).toEqual(odd);
    expect(() => encodeApplicationInformation({ ...plain, label: 'a\ud800b' })).toThrow(InvalidArgumentError);
  });

  test('a label keeps its byte order mark', () => {
    const marked = { ...plain, label: '\ufeffA' };
    expect(decodeApplicationInformation(encodeApplicationInformation(marked), context)).toEqual(marked);
  });

  test('the bytes of an agent are not shared with the block', () => {
    const block = encodeApplicationInformationBlock(ours, { ...plain, agentBytes: Uint8Array.of(1) });
    const { agentBytes } = decodeApplicationInformationBlock(block, context).information;
    block.fill(0);
    expect(agentBytes).toEqual(Uint8Array.of(1));
  });

  test('of ours: bytes after the stated size are refused', () => {
    const block = encodeApplicationInformationBlock(ours, plain);
    viewOf(block).setUint32(48, 67, true);
    block[16_000] = 1;
    sealBlock(block);
    expect(() => decodeApplicationInformationBlock(block, context)).toThrow('information after its size');
  });

  test('survives any bytes', () => {
    const information = { ...plain, label: 'L', agentBytes: Uint8Array.of(1, 2) };
    const payload = encodeApplicationInformation(information);
    survivesAnyBytes(payload, (bytes) => decodeApplicationInformation(bytes, context));
    survivesAnyBytes(payload, (bytes) => decodeApplicationInformation(bytes, foreignContext));
    survivesAnyBytes(encodeApplicationInformationBlock(windows, information), (bytes) =>
      decodeApplicationInformationBlock(bytes, context),
    );
  });
});
