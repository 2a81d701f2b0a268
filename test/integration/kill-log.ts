/** What `kill-child.ts` tells of its work. */
import { SeededRandom } from '../../src/testing/seeded-random.ts';

export interface WriteBegun {
  readonly number: number;
  readonly begin: 'write';
  readonly offset: number;
  readonly length: number;
}
export type LogLine =
  | WriteBegun
  | { readonly number: number; readonly begin: 'create' }
  | { readonly number: number; readonly begin: 'delete' }
  | { readonly number: number; readonly done: true; readonly id?: string };

/** The bytes of write `number`. */
export const dataOf = (seed: string, number: number, length: number): Uint8Array =>
  new SeededRandom(`${seed}/data ${number}`).fill(new Uint8Array(length));
