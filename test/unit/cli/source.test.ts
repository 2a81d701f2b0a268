/** `VOLUME@ID`, and what only looks like it. */
import { expect, test } from 'vitest';
import { namedTwice, parseSource } from '../../../src/cli/volumes.js';

const PSK = '?tls-psk-file=keys.psk';

test.each([
  ['disk.img', 'disk.img', undefined],
  ['disk.img@1a2b', 'disk.img', '1a2b'],
  ['a@b.img@1a2b', 'a@b.img', '1a2b'],
  ['folder@home/disk.img', 'folder@home/disk.img', undefined],
  ['folder@home/disk.img@1a2b', 'folder@home/disk.img', '1a2b'],
  ['nbd://host/disk@1a2b', 'nbd://host/disk', '1a2b'],
  ['nbd://host@1a2b', 'nbd://host', '1a2b'],
  ['nbd+unix:///?socket=/run/a@b/nbd.sock', 'nbd+unix:///?socket=/run/a@b/nbd.sock', undefined],
  ['nbd+unix:///?socket=/run/a@b/nbd.sock@1a2b', 'nbd+unix:///?socket=/run/a@b/nbd.sock', '1a2b'],
  ['nbds://alice@host', 'nbds://alice@host', undefined],
  [`nbds://alice@host${PSK}`, `nbds://alice@host${PSK}`, undefined],
  [`nbds://alice@host/disk${PSK}`, `nbds://alice@host/disk${PSK}`, undefined],
  [`nbds://alice@host/disk${PSK}@1a2b`, `nbds://alice@host/disk${PSK}`, '1a2b'],
  ['nbds+unix://alice@/?socket=nbd.sock', 'nbds+unix://alice@/?socket=nbd.sock', undefined],
])('%s', async (text, path, id) => {
  expect(await parseSource(text)).toEqual({ path, id });
});

test('an @ with nothing behind it is a mistake', async () => {
  await expect(parseSource('disk.img@')).rejects.toThrow('follows the @');
});

test('a volume that is named twice is found whatever the path looks like', () => {
  expect(namedTwice(['a.img', 'b.img'])).toBeUndefined();
  expect(namedTwice(['a.img', 'b.img', './x/../a.img'])).toBe('./x/../a.img');
});
