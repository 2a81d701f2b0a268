/** Codecs of the NBD protocol: what one side writes, the other reads; what is malformed is refused. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeBlockStatus, encodeBlockStatus } from '../../../src/nbd/wire/block-status.ts';
import { HeaderSize, Magic, REPLY_DONE, ReplyType, STRING_MAX } from '../../../src/nbd/wire/constants.ts';
import {
  decodeContextQuery,
  decodeInfoRequest,
  decodeString,
  encodeContextQuery,
  encodeInfoRequest,
} from '../../../src/nbd/wire/option.ts';
import {
  cutString,
  decodeReplyHeader,
  encodeDataHeader,
  encodeErrorChunk,
  encodeSimpleReply,
  replyHeaderSize,
} from '../../../src/nbd/wire/reply.ts';
import { decodeRequest, encodeRequest } from '../../../src/nbd/wire/request.ts';

const u32 = fc.nat(0xffff_ffff);
const u16 = fc.nat(0xffff);
const safe = fc.maxSafeNat();
const cookie = { cookieHigh: u32, cookieLow: u32 };
const text = fc.string({ unit: 'grapheme', maxLength: 80 }).filter((each) => !each.includes('\0'));

describe('requests', () => {
  test('are read as they were written, compact and extended', () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.record({ flags: u16, type: u16, ...cookie, offset: safe, length: u32 }),
        (extended, request) => {
          expect(decodeRequest(encodeRequest(request, extended), 0, extended)).toMatchObject(request);
        },
      ),
    );
  });

  test('with the magic number of the other kind are refused', () => {
    const bytes = encodeRequest(
      { flags: 0, type: 0, cookieHigh: 1, cookieLow: 2, offset: 0, length: 0 },
      true,
    );
    expect(decodeRequest(bytes, 0, false)).toBeUndefined();
  });
});

describe('replies', () => {
  const to = { cookieHigh: 7, cookieLow: 9, offsetHigh: 0xffff_ffff, offsetLow: 0xffff_fe00 };

  test('say how long their headers are by their magic numbers', () => {
    expect(replyHeaderSize(Magic.simpleReply)).toBe(HeaderSize.simpleReply);
    expect(replyHeaderSize(Magic.structuredReply)).toBe(HeaderSize.structuredReply);
    expect(replyHeaderSize(Magic.extendedReply)).toBe(HeaderSize.extendedReply);
    expect(replyHeaderSize(Magic.request)).toBeUndefined();
  });

  test('carry the cookie and, as chunks, the length of what follows', () => {
    expect(decodeReplyHeader(encodeSimpleReply(to, 5), 0)).toMatchObject({
      style: 'simple',
      error: 5,
      cookieHigh: 7,
      cookieLow: 9,
    });
    for (const extended of [false, true]) {
      const header = encodeDataHeader(to, extended, { offset: 4096, length: 512, done: true });
      expect(decodeReplyHeader(header, 0)).toMatchObject({
        style: 'chunk',
        flags: REPLY_DONE,
        type: ReplyType.offsetData,
        length: 8 + 512,
        cookieHigh: 7,
        cookieLow: 9,
      });
    }
  });

  test('cut a message at what the protocol allows, never inside a character', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 3000 }), (message) => {
        const bytes = cutString(message.repeat(3));
        expect(bytes.byteLength).toBeLessThanOrEqual(STRING_MAX);
        expect(decodeString(bytes)).toBeDefined();
      }),
    );
    expect(encodeErrorChunk(to, false, 5, 'x'.repeat(10_000)).byteLength).toBe(20 + 6 + STRING_MAX);
  });
});

describe('block status', () => {
  const extents = fc.array(fc.record({ length: fc.integer({ min: 1, max: 0xffff_ffff }), status: u32 }), {
    minLength: 1,
    maxLength: 50,
  });

  test('is read as it was written', () => {
    fc.assert(
      fc.property(fc.boolean(), u32, extents, (extended, id, list) => {
        const bytes = encodeBlockStatus(
          { cookieHigh: 0, cookieLow: 0, offsetHigh: 0, offsetLow: 0 },
          extended,
          {
            id,
            extents: list,
            done: true,
          },
        );
        const header = extended ? HeaderSize.extendedReply : HeaderSize.structuredReply;
        expect(decodeBlockStatus(bytes.subarray(header), extended)).toEqual({ id, extents: list });
      }),
    );
  });

  test('of odd length, without extents, or with an extent of no bytes is refused', () => {
    expect(decodeBlockStatus(Buffer.alloc(4), false)).toBeUndefined();
    expect(decodeBlockStatus(Buffer.alloc(13), false)).toBeUndefined();
    expect(decodeBlockStatus(Buffer.alloc(12), false)).toBeUndefined();
    expect(decodeBlockStatus(Buffer.alloc(24), true)).toBeUndefined();
  });
});

describe('data of options', () => {
  test('is read as it was written', () => {
    fc.assert(
      fc.property(
        text,
        fc.array(u16, { maxLength: 8 }),
        fc.array(text, { maxLength: 8 }),
        (name, kinds, queries) => {
          expect(decodeInfoRequest(encodeInfoRequest({ name, kinds }))).toEqual({ name, kinds });
          expect(decodeContextQuery(encodeContextQuery({ exportName: name, queries }))).toEqual({
            exportName: name,
            queries,
          });
        },
      ),
    );
  });

  test('cut short or with bytes too many is refused, whatever it is', () => {
    fc.assert(
      fc.property(text, fc.array(text, { minLength: 1, maxLength: 4 }), fc.nat(), (name, queries, at) => {
        const info = encodeInfoRequest({ name, kinds: [3] });
        const query = encodeContextQuery({ exportName: name, queries });
        expect(decodeInfoRequest(info.subarray(0, at % info.byteLength))).toBeUndefined();
        expect(decodeContextQuery(query.subarray(0, at % query.byteLength))).toBeUndefined();
        expect(decodeInfoRequest(Buffer.concat([info, Buffer.alloc(1)]))).toBeUndefined();
        expect(decodeContextQuery(Buffer.concat([query, Buffer.alloc(1)]))).toBeUndefined();
      }),
    );
  });

  test('of any bytes is read or refused, never more than that', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        decodeInfoRequest(Buffer.from(bytes));
        decodeContextQuery(Buffer.from(bytes));
      }),
    );
  });

  test('with a name that is not UTF-8, or has a NUL, is refused', () => {
    expect(decodeString(Buffer.from([0xff]))).toBeUndefined();
    expect(decodeString(Buffer.from('a\0b'))).toBeUndefined();
    expect(decodeString(Buffer.alloc(STRING_MAX + 1, 0x61))).toBeUndefined();
    expect(decodeString(Buffer.from('Bücher'))).toBe('Bücher');
  });
});
