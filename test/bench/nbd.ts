/**
 * Question: how fast is volsnap through NBD, next to others that serve volumes, and at what cost of processor time?
 *
 * Contenders serve side by side, each with files of its own; a workload is put on one after the other. Before each, everything
 * that is still to be written is: what one left behind is not paid by the next. Images are random bytes in the page cache.
 *
 * Behind what is measured each volume has some more, where the same loads are run first: a server of a virtual machine has been
 * running for long, and what is compiled while it runs is compiled.
 */
import { execFile } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { floor } from './first-writes.js';
import { furnishMemory } from './host-memory.js';
import { CONTENDERS, IMAGE, isInstalled, Name, type Serving } from './nbd/contenders.js';
import { fio } from './nbd/fio.js';
import { ratioName, Unit } from './nbd/report.js';
import { TARGETS } from './nbd/targets.js';
import { type Cell, GROUPS, Workload } from './nbd/workloads.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

/** Bytes at the end of a volume that servers warm up with: what runs in them for long is compiled after some 500 MiB, of large reads 2 GiB. */
const warmUp = (size: number): number => Math.min(2 ** 30, 2 * size);
/** Of less the figures mean nothing: one load of each group shows that warming up works. */
const MEANINGFUL = 2 ** 26;

/** By name; all unless given. */
export interface Choice {
  readonly contenders?: RegExp | undefined;
  /** The first workload of a group runs with any other of it. */
  readonly workloads?: RegExp | undefined;
}

/** `turn` counts from 0: who begins moves on with it. */
export async function nbd(size: number, turn = 0, choice: Choice = {}): Promise<Figures[]> {
  const folder = await mkdtemp(join(process.env.VOLSNAP_BENCH_DIR ?? tmpdir(), 'volsnap-bench-nbd-'));
  try {
    await randomFile(join(folder, IMAGE), size + warmUp(size));
    const figures: Figures[] = [];
    for (const group of GROUPS) {
      const isWanted = ({ name }: Cell) => choice.workloads?.test(name) ?? true;
      if (!group.some(isWanted)) continue;
      const cells = group.filter((cell, index) => index === 0 || isWanted(cell));
      figures.push(...(await new Course(folder, size, choice).run(cells, turn)));
    }
    return [...figures, ...ratios(figures)];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A group of workloads on fresh volumes. */
class Course {
  readonly #serving = new Map<string, Serving>();

  constructor(
    private readonly folder: string,
    private readonly size: number,
    private readonly choice: Choice,
  ) {}

  async run(cells: readonly Cell[], turn: number): Promise<Figures[]> {
    try {
      await this.#start(new Set(cells.flatMap(({ contenders }) => contenders)));
      const figures: Figures[] = [];
      for (const cell of this.size < MEANINGFUL ? cells.slice(0, 1) : cells) await this.#warmUp(cell);
      for (const cell of cells) figures.push(...(await this.#measure(cell, turn)));
      return figures;
    } finally {
      for (const serving of this.#serving.values()) await serving.server[Symbol.asyncDispose]();
    }
  }

  async #start(names: ReadonlySet<string>): Promise<void> {
    for (const contender of CONTENDERS) {
      const { name } = contender;
      if (!names.has(name) || !this.#isWanted(name) || !isInstalled(contender)) continue;
      const own = join(this.folder, 'serving', name.replaceAll(/\W+/g, '-'));
      await rm(own, { recursive: true, force: true });
      await mkdir(own, { recursive: true });
      await copyFile(join(this.folder, IMAGE), join(own, IMAGE));
      this.#serving.set(name, await contender.start(own, this.size + warmUp(this.size)));
    }
  }

  async #warmUp(cell: Cell): Promise<void> {
    const range = { offset: this.size, length: warmUp(this.size) };
    for (const name of cell.contenders) {
      const serving = this.#serving.get(name);
      if (serving !== undefined)
        await fio(uriOf(serving, cell), range, { ...cell, share: Math.max(1, cell.share ?? 1) });
    }
  }

  /** Speed and processor time of each contender that takes part. */
  async #measure(cell: Cell, turn: number): Promise<Figures[]> {
    const speed: Record<string, number> = {};
    const processor: Record<string, number> = {};
    const gibibytes = (this.size * (cell.share ?? 1)) / 2 ** 30;
    for (const name of rotated(cell.contenders, turn)) {
      const serving = this.#serving.get(name);
      if (serving === undefined) continue;
      const { server } = serving;
      await settle(this.folder);
      await furnishMemory(this.folder, this.size);
      const before = await server.processorSeconds();
      speed[name] = await fio(uriOf(serving, cell), { offset: 0, length: this.size }, cell);
      processor[name] = ((await server.processorSeconds()) - before) / gibibytes;
    }
    if (cell.name === Workload.firstLarge && this.#isWanted(Name.floor)) {
      await using place = await Place.create(this.size);
      await settle(this.folder);
      const least = await floor(place, this.size);
      speed[Name.floor] = least.speed;
      processor[Name.floor] = least.processor / gibibytes;
    }
    return [
      { name: cell.name, unit: Unit.speed, values: speed },
      { name: cell.name, unit: Unit.processor, values: processor },
    ];
  }

  #isWanted(name: string): boolean {
    return this.choice.contenders?.test(name) ?? true;
  }
}

const uriOf = ({ live, snapshot }: Serving, { ofSnapshot }: Cell): string => (ofSnapshot ? snapshot : live);

/** Ratios are taken in each run, between what was measured within seconds. */
function ratios(figures: readonly Figures[]): Figures[] {
  return TARGETS.flatMap(({ workload, own, peer }) => {
    const values = figures.find(({ name, unit }) => name === workload && unit === Unit.speed)?.values;
    const [ours, theirs] = [values?.[own], values?.[peer]];
    if (ours === undefined || theirs === undefined) return [];
    return [{ name: ratioName(workload, own, peer), unit: Unit.ratio, values: { ratio: ours / theirs } }];
  });
}

const rotated = <T>(items: readonly T[], by: number): T[] => [
  ...items.slice(by % items.length),
  ...items.slice(0, by % items.length),
];

/** Writes to the disk what the file system has not yet. */
const settle = (folder: string) => promisify(execFile)('sync', ['--file-system', folder]);

async function randomFile(path: string, size: number): Promise<void> {
  const file = await open(path, 'wx');
  const bytes = new Uint8Array(2 ** 20);
  for (let at = 0; at < size; at += bytes.byteLength) await file.write(randomFillSync(bytes));
  await file.close();
}
