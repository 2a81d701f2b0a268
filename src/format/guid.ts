/**
 * GUIDs: text in canonical lower case, on disk 16 bytes of which the first three fields are little-endian.
 */
import type { Random } from '../environment.js';
import { assert } from '../errors.js';

/** For example `3808876b-c176-4e48-b7ae-04046e6cc752`. */
export type Guid = string;

export const GUID_SIZE = 16;
/** All zero: no identifier. */
export const NIL_GUID: Guid = '00000000-0000-0000-0000-000000000000';

const CANONICAL = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** Place on disk of each byte of the text, in reading order. */
const BYTE_ORDER = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15] as const;
/** A hyphen follows the byte that lies at one of these places on disk. */
const HYPHEN_AFTER: ReadonlySet<number> = new Set([0, 4, 6, 9]);
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** Whether `text` is a GUID in the one form that this package uses: lower case, without braces. */
export const isGuid = (text: string): boolean => CANONICAL.test(text);

/** The GUID in the 16 bytes at `at`; any bytes are one. */
export function decodeGuid(bytes: Uint8Array, at: number): Guid {
  let text = '';
  for (const place of BYTE_ORDER) {
    text += HEX[bytes[at + place] ?? 0];
    if (HYPHEN_AFTER.has(place)) text += '-';
  }
  return text;
}

/** Stores `guid` in the 16 bytes at `at`. */
export function encodeGuid(bytes: Uint8Array, at: number, guid: Guid): void {
  assert(isGuid(guid), () => `"${guid}" is not a GUID in canonical lower case`);
  const digits = guid.replaceAll('-', '');
  BYTE_ORDER.forEach((place, i) => {
    bytes[at + place] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  });
}

/** A random (version 4) GUID. */
export function guidFrom(random: Random): Guid {
  const bytes = random.fill(new Uint8Array(GUID_SIZE));
  // Byte 7 on disk is the high byte of the third field, which carries the version.
  bytes[7] = ((bytes[7] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return decodeGuid(bytes, 0);
}
