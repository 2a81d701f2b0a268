/** Question: how long are eight volumes held together for a snapshot set, with 16 writes in flight on each? */
import { createSnapshotSet, type Volume, type WriteMode } from '../../src/index.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

const MODES: readonly WriteMode[] = ['ordered', 'writeback'];
const VOLUMES = 8;
const DEPTH = 16;
const SIZE = 2 ** 30;
/** Milliseconds between two sets. */
const PAUSE = 100;

export async function snapshotSet(size: number): Promise<Figures[]> {
  const count = size < 2 ** 26 ? 2 : 20;
  const all: Figures[] = [];
  for (const mode of MODES) {
    const held = await measure(mode, count);
    held.sort((a, b) => a - b);
    all.push({
      name: `${VOLUMES} volumes held together, depth ${DEPTH} each, ${mode}`,
      unit: 'ms',
      values: { median: held[held.length >> 1] ?? Number.NaN, longest: held.at(-1) ?? Number.NaN },
    });
  }
  return all;
}

/** @returns for each set how long the volume that was held longest was */
async function measure(writeMode: WriteMode, count: number): Promise<number[]> {
  const places: Place[] = [];
  const volumes: Volume[] = [];
  const load = { isOver: false };
  const held: number[] = [];
  try {
    for (let i = 0; i < VOLUMES; i++) {
      const place = await Place.create(SIZE);
      places.push(place);
      volumes.push(await place.volume('directory', false, { writeMode }));
    }
    const writers = volumes.flatMap((volume) =>
      Array.from({ length: DEPTH }, (_, writer) => writeUntil(load, volume, writer)),
    );
    for (let i = 0; i < count; i++) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      await createSnapshotSet(volumes);
      held.push(Math.max(...volumes.map(({ figures }) => figures.lastHoldMs)));
    }
    load.isOver = true;
    await Promise.all(writers);
  } finally {
    load.isOver = true;
    for (const volume of volumes) await volume.close();
    for (const place of places) await place[Symbol.asyncDispose]();
  }
  return held;
}

async function writeUntil(load: { readonly isOver: boolean }, volume: Volume, writer: number): Promise<void> {
  const bytes = new Uint8Array(4096).fill(1);
  const room = SIZE / DEPTH;
  for (let i = 0; !load.isOver; i++) await volume.write(writer * room + ((i * 4096) % room), bytes);
}
