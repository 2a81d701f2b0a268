/** Sizes, as people write and read them. K, M, G and T are powers of 1024. */
import { InvalidArgumentError } from 'commander';
import type { ByteLength } from '../index.js';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const SIZE = /^(?<number>\d+(?:\.\d+)?|0x[\da-f]+)\s*(?:(?<unit>[kmgt])(?:ib)?|b)?$/i;
const POWERS: Readonly<Record<string, number>> = { k: 1, m: 2, g: 3, t: 4 };

/** `64M`, `1.5GiB`, `4096`, `0x1e00`. @throws InvalidArgumentError of commander, which ends as wrong usage */
export function parseSize(text: string): ByteLength {
  const { number, unit = '' } = SIZE.exec(text.trim())?.groups ?? {};
  if (number === undefined) {
    throw new InvalidArgumentError(
      'Give bytes, or a number with K, M, G or T (powers of 1024), such as 64M.',
    );
  }
  const bytes = Number(number) * 1024 ** (POWERS[unit.toLowerCase()] ?? 0);
  if (!Number.isInteger(bytes)) throw new InvalidArgumentError('That is not a whole number of bytes.');
  if (!Number.isSafeInteger(bytes)) throw new InvalidArgumentError('That is more than 8 PiB.');
  return bytes;
}

/** The same, but more than 0. @throws InvalidArgumentError of commander */
export function parsePositiveSize(text: string): ByteLength {
  const bytes = parseSize(text);
  if (bytes === 0) throw new InvalidArgumentError('Give more than 0.');
  return bytes;
}

/** `12.3 MiB`; exact below 1 KiB. */
export function formatSize(bytes: ByteLength): string {
  let value = bytes;
  let unit = 0;
  // 1023.96 would be shown as 1024.0.
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toFixed(1))} ${UNITS[unit]}`;
}

/** `67,108,864`. */
export const formatCount = (count: number): string => count.toLocaleString('en');

/** `4.8 %`; anything between nothing and everything is shown as neither. */
export function formatShare(part: number, whole: number): string {
  if (part === 0 || whole === 0) return '0 %';
  if (part >= whole) return '100 %';
  const percent = (part / whole) * 100;
  if (percent < 0.1) return '< 0.1 %';
  return `${Math.min(percent, 99.9).toFixed(1)} %`;
}
