import { describe, expect, test } from 'vitest';
import { InvalidArgumentError, UnsupportedError } from '../../../src/errors.ts';
import { looksLikeUri, parseNbdUri } from '../../../src/nbd/client/uri.ts';

describe('an NBD address', () => {
  test('names a host, a port and an export', () => {
    expect(parseNbdUri('nbd://example.org:1234/some/disk')).toEqual({
      uri: 'nbd://example.org:1234/some/disk',
      place: { kind: 'tcp', host: 'example.org', port: 1234 },
      exportName: 'some/disk',
      tls: undefined,
    });
  });

  test.each([
    ['nbd://localhost', { host: 'localhost', port: 10_809 }, ''],
    ['nbd://localhost/', { host: 'localhost', port: 10_809 }, ''],
    ['NBD://localhost//a', { host: 'localhost', port: 10_809 }, '/a'],
    ['nbd://[::1]:99/a%20b%25%C3%A9', { host: '::1', port: 99 }, 'a b%é'],
    ['nbd://[fe80::1%25eth0]/', { host: 'fe80::1%eth0', port: 10_809 }, ''],
  ])('%s', (uri, place, name) => {
    const parsed = parseNbdUri(uri);
    expect(parsed.place).toEqual({ kind: 'tcp', ...place });
    expect(parsed.exportName).toBe(name);
  });

  test.each([
    ['nbd+unix:///?socket=/run/a.sock', '/run/a.sock', ''],
    ['nbd+unix:///disk?socket=/run/a%26b%3F', '/run/a&b?', 'disk'],
    ['nbd+unix://?socket=a=b+c', 'a=b+c', ''],
  ])('%s', (uri, path, name) => {
    const parsed = parseNbdUri(uri);
    expect(parsed.place).toEqual({ kind: 'unix', path });
    expect(parsed.exportName).toBe(name);
  });

  test('with TLS says whom to trust and who asks', () => {
    const { tls } = parseNbdUri('nbds://alice@example.org/?tls-psk-file=/etc/keys.psk');
    expect(tls).toEqual({
      certificates: undefined,
      pskFile: '/etc/keys.psk',
      user: 'alice',
      hostname: 'example.org',
      verifyPeer: true,
    });
    expect(
      parseNbdUri('nbds+unix:///?socket=s&tls-certificates=pki&tls-verify-peer=false&tls-hostname=h').tls,
    ).toEqual({ certificates: 'pki', pskFile: undefined, user: undefined, hostname: 'h', verifyPeer: false });
    expect(parseNbdUri('nbds+unix:///?socket=s&tls-username=bob').tls).toMatchObject({
      user: 'bob',
      hostname: 'localhost',
    });
  });

  test.each([
    ['nbd://', 'names no host'],
    ['nbd:///export', 'names no host'],
    ['nbd://host:0/', 'not a port'],
    ['nbd://host:65536/', 'not a port'],
    ['nbd://host:12x/', 'neither host nor host:port'],
    ['nbd://::1/', 'neither host nor host:port'],
    ['nbd://host/#part', 'has not the form'],
    ['nbd://host/%zz', 'hexadecimal'],
    ['nbd://host/%ff', 'UTF-8'],
    ['nbd://host/a%00', 'zero byte'],
    [`nbd://host/${'a'.repeat(4097)}`, 'longer than 4096'],
    ['nbd://host/?tls-certificates=pki', 'goes with nbds'],
    ['nbd://alice@host/', 'a user goes with nbds'],
    ['nbds://alice:secret@host/', 'without a password'],
    ['nbds://host/?tls-certificats=pki', 'no parameter tls-certificats'],
    ['nbds://host/?tls-certificates=a&tls-certificates=b', 'twice'],
    ['nbds://host/?tls-certificates=a&tls-psk-file=b', 'choose one'],
    ['nbds://host/?tls-verify-peer=maybe', 'true or false'],
    ['nbds://a@host/?tls-username=b', 'two users'],
    ['nbd://host/?socket=/a', 'goes with nbd+unix'],
    ['nbd+unix:///export', '?socket=PATH'],
    ['nbd+unix://host/?socket=/a', 'on no host'],
    ['nbd+unix:///?socket=', 'is empty'],
    ['nbd+unix:///?socket', 'has no value'],
    ['disk.img', 'has not the form'],
  ])('%s is refused', (uri, why) => {
    expect(() => parseNbdUri(uri)).toThrow(InvalidArgumentError);
    expect(() => parseNbdUri(uri)).toThrow(why);
  });

  test.each(['http://host/', 'nbd+vsock://2/', 'nbd+ssh://host/'])('%s is of another kind', (uri) => {
    expect(() => parseNbdUri(uri)).toThrow(UnsupportedError);
    expect(looksLikeUri(uri)).toBe(true);
  });

  test('a path is none', () => {
    for (const path of ['disk.img', '/dev/sda', 'a:b', 'C:/x', './nbd:/x'])
      expect(looksLikeUri(path)).toBe(false);
  });
});
