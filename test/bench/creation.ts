/** Question: how long does taking a snapshot of a 1 TiB sparse volume take, and for how long are writers held, at depth 16? The size only says how often. */
import { Place } from './place.js';
import type { Figures } from './table.js';

export async function creation(size: number): Promise<Figures[]> {
  const count = size < 2 ** 26 ? 3 : 20;
  await using place = await Place.create(2 ** 40);
  const volume = await place.volume('directory', false);
  let stop = false;
  const bytes = new Uint8Array(4096).fill(1);
  const writers = Array.from({ length: 16 }, async (_, writer) => {
    for (let i = 0; !stop; i++) await volume.write(writer * 2 ** 32 + (i % 4096) * 4096, bytes);
  });
  const times: number[] = [];
  const holds: number[] = [];
  for (let i = 0; i < count; i++) {
    const started = performance.now();
    await volume.createSnapshot();
    times.push(performance.now() - started);
    holds.push(volume.figures.lastHoldMs);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  stop = true;
  await Promise.all(writers);
  await volume.close();
  const middle = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
  return [
    {
      name: 'create, 1 TiB volume, 16 writers',
      unit: 'ms',
      values: { median: middle(times), longest: Math.max(...times) },
    },
    { name: 'writers held', unit: 'ms', values: { median: middle(holds), longest: Math.max(...holds) } },
  ];
}
