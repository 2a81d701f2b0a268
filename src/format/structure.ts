/**
 * A structure on disk as data: its fields in order with their sizes, from which the offsets follow.
 *
 * The codecs take their offsets from here and `describeLayout` prints the same tables, so the pinned layout is the
 * one that is really read and written.
 */
import { assert } from '../errors.js';

export interface Structure<Field extends string = string> {
  readonly name: string;
  readonly size: number;
  /** Byte offset of each field from the beginning of the structure. */
  readonly at: Readonly<Record<Field, number>>;
  /** Size of each field in bytes, in the order of the fields. */
  readonly sizes: Readonly<Record<Field, number>>;
}

/** Lays out `sizes` one after the other, starting at `from`; they must end exactly at `size`. */
export function structure<Field extends string>(
  name: string,
  size: number,
  sizes: Readonly<Record<Field, number>>,
  from = 0,
): Structure<Field> {
  const at: Partial<Record<Field, number>> = {};
  let end = from;
  for (const field in sizes) {
    at[field] = end;
    end += sizes[field];
  }
  assert(end === size, () => `the fields of the ${name} end at ${end}, not at ${size}`);
  return { name, size, at: at as Record<Field, number>, sizes };
}
