import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../../src/errors.js';
import {
  blockMapSizeFor,
  decodeBlockMapHeader,
  decodeVciHeader,
  encodeBlockMapHeader,
  encodeVciHeader,
  isVci,
  VCI_BLOCK_MAP,
  VCI_EXTENSION,
  VCI_HEADER,
  type VciHeader,
} from '../../../src/format/vci.js';
import {
  decodeNode,
  emptyColumns,
  emptyLinks,
  encodeNode,
  VCI_CHILD,
  VCI_EXTENT,
  VCI_NODE_SEAL,
} from '../../../src/format/vci-node.js';
import { guids, safe, survivesAnyBytes, u64 } from './fixtures.js';

const headers: fc.Arbitrary<VciHeader> = fc
  .record({
    size: fc.integer({ min: 4096, max: 0xffff_ffff }),
    unclean: fc.boolean(),
    type: fc.constantFrom('dynamic' as const, 'fixed' as const),
    treeRoot: fc.integer({ min: 2, max: 4088 }),
    imageId: guids,
    modificationId: guids,
    extension: fc.option(
      fc.record({
        generation: safe,
        intents: fc.integer({ min: 2, max: 3000 }),
        intentsSize: fc.integer({ min: 1, max: 256 }),
        derivedModification: fc.boolean(),
        backingSize: safe,
        backingName: u64,
      }),
      { nil: undefined },
    ),
  })
  .map((header) => ({ ...header, blockMap: 2, blockMapSize: blockMapSizeFor(header.size) }))
  .filter(({ blockMapSize, size }) => blockMapSize + 2 <= size);

const sample: VciHeader = {
  size: 4096,
  unclean: false,
  type: 'dynamic',
  treeRoot: 8,
  blockMap: 2,
  blockMapSize: 2,
  imageId: '11111111-2222-4333-8444-555555555555',
  modificationId: '11111111-2222-4333-8444-555555555556',
  extension: {
    generation: 3,
    intents: 4,
    intentsSize: 1,
    derivedModification: true,
    backingSize: 1 << 30,
    backingName: 5n,
  },
};

test('no field of the format has moved', () => {
  const layout = [VCI_HEADER, VCI_EXTENSION, VCI_BLOCK_MAP, VCI_EXTENT, VCI_CHILD, VCI_NODE_SEAL].map(
    ({ name, size, at }) =>
      `${name} (${size}): ${Object.entries(at)
        .map(([field, offset]) => `${offset} ${field}`)
        .join(', ')}`,
  );
  expect(layout).toEqual([
    'VCI header (1024): 0 signature, 4 version, 8 size, 16 unclean, 17 type, 21 treeRoot, 29 blockMap, 37 blockMapSize, 41 imageId, 57 modificationId, 73 reserved',
    'VCI header extension (184): 128 magic, 132 version, 136 generation, 144 intents, 152 intentsSize, 156 flags, 160 backingSize, 168 backingName, 176 reserved, 180 checksum',
    'VCI block map (512): 0 magic, 4 version, 8 blocks, 16 free, 24 metadata, 32 data, 40 reserved',
    'VCI extent (38): 0 previous, 8 next, 16 flags, 17 reserved, 18 first, 26 count, 30 address',
    'VCI child (20): 0 first, 8 count, 12 address',
    'VCI node seal (4096): 4081 reserved, 4084 generation, 4092 checksum',
  ]);
});

describe('header', () => {
  test('comes back as it was', () => {
    fc.assert(
      fc.property(headers, (header) => {
        const bytes = encodeVciHeader(header);
        expect(isVci(bytes)).toBe(true);
        expect(decodeVciHeader(bytes)).toEqual(header);
      }),
    );
  });

  test('any changed bit of what volsnap wrote is noticed', () => {
    fc.assert(
      fc.property(fc.nat({ max: 511 }), fc.nat({ max: 7 }), (at, bit) => {
        const bytes = encodeVciHeader(sample);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
        expect(() => decodeVciHeader(bytes)).toThrow(FormatError);
      }),
    );
  });

  test('any bytes are a header or refused', () => {
    survivesAnyBytes(encodeVciHeader({ ...sample, extension: undefined }), decodeVciHeader);
    survivesAnyBytes(encodeVciHeader(sample), decodeVciHeader);
  });
});

describe('block map', () => {
  test('comes back as it was, and has to add up', () => {
    const counts = { blocks: 100, free: 50, metadata: 20, data: 30 };
    expect(decodeBlockMapHeader(encodeBlockMapHeader(counts), { offset: 0 })).toEqual(counts);
    expect(() => decodeBlockMapHeader(encodeBlockMapHeader({ ...counts, free: 51 }), { offset: 0 })).toThrow(
      'together is 0x65',
    );
  });

  test('any bytes are one or refused', () => {
    const good = encodeBlockMapHeader({ blocks: 100, free: 50, metadata: 20, data: 30 });
    survivesAnyBytes(good, (bytes) => decodeBlockMapHeader(bytes, { offset: 0 }));
  });
});

describe('tree node', () => {
  const nodes = fc
    .record({
      kind: fc.constantFrom('leaf' as const, 'internal' as const),
      steps: fc.array(
        fc.tuple(
          fc.nat({ max: 1000 }),
          fc.integer({ min: 1, max: 2048 }),
          fc.integer({ min: 2, max: 2 ** 31 }),
        ),
        {
          minLength: 1,
          maxLength: 107,
        },
      ),
    })
    .map(({ kind, steps }) => {
      const node = emptyColumns(kind);
      let at = 0;
      for (const [gap, count, address] of steps) {
        node.firsts[node.size] = at + gap;
        node.counts[node.size] = count;
        node.addresses[node.size] = address;
        node.size++;
        at += gap + count;
      }
      return node;
    });

  test('comes back as it was, with its links', () => {
    fc.assert(
      fc.property(nodes, safe, (node, generation) => {
        const links = emptyLinks();
        for (let index = 0; index < node.size && node.kind === 'leaf'; index++)
          [links.previous[index], links.next[index]] = [index, index + 1];
        const bytes = encodeNode(node, generation, links);
        const decoded = decodeNode(bytes, { offset: 0 }, true);
        expect(decoded.node).toEqual(node);
        expect(decoded.generation).toBe(generation);
        if (node.kind === 'leaf') {
          expect([...decoded.previous.subarray(0, node.size)]).toEqual([...Array(node.size).keys()]);
          expect(decoded.next[node.size - 1]).toBe(node.size);
        }
      }),
    );
  });

  test('any bytes are a node or refused', () => {
    const [node] = fc.sample(nodes, 1);
    const good = encodeNode(node ?? emptyColumns('leaf'), 1);
    for (const sealed of [true, false])
      survivesAnyBytes(good, (bytes) => decodeNode(bytes, { offset: 4096 }, sealed));
  });

  test('flags that volsnap does not know are refused', () => {
    const node = emptyColumns('leaf');
    node.size = 1;
    node.counts[0] = 1;
    node.addresses[0] = 9;
    const bytes = encodeNode(node, 0);
    bytes[1 + 16] = 1;
    expect(() => decodeNode(bytes, { offset: 0 }, false)).toThrow('extent 0: flags');
  });
});
