/**
 * Tries every crash of a history of a cached device: at every step of the scheduler, in every way that a crash can leave the backing and the image, as
 * `test/simulation/exploration.ts` does with the engine.
 */
import { createHash } from 'node:crypto';
import { CachedDevice, CacheImage } from '../../../src/index.js';
import { ModelMismatch, SimulatedWorld, VolumeModel } from '../../../src/testing/index.js';
import { CrashMoment, type CrashScope } from '../crash-states.js';
import type { ExplorationCounters } from '../exploration.js';
import type { CacheHistory, CacheOperation } from './histories.js';

const UNIT = 4096;
const BACKING_SIZE = 32 * UNIT;
const IMAGE_SIZE = 1024 * 1024;
const MODIFICATION = '11111111-1111-4111-8111-111111111111';
const OTHER_MODIFICATION = '22222222-2222-4222-8222-222222222222';

export interface CacheExplorationOptions {
  readonly seed: number;
  /** Up to so many states of one moment every subset is tried. */
  readonly limit: number;
  /** At most so many states of one moment and kind of crash, evenly chosen from all. */
  readonly perMoment: number;
}

/** @throws Error for the first state that breaks a promise, naming it */
export async function exploreCache(
  history: CacheHistory,
  options: CacheExplorationOptions,
): Promise<ExplorationCounters> {
  const counters: ExplorationCounters = { moments: 0, states: 0, sampled: 0 };
  const seen = new Set<string>();
  for (const steps of await momentsOf(history, options.seed)) {
    counters.moments++;
    const replay = await CacheReplay.until(history, options.seed, steps);
    const saved = replay.world.save();
    for (const model of ['power-cut', 'kill'] as const) {
      replay.world.restore(saved);
      const moment = new CrashMoment(replay.scope, model);
      if (2 ** moment.units.length > options.limit) counters.sampled++;
      const states = [...moment.states(options.limit, `${history.name} ${steps}`)];
      const stride = Math.max(1, Math.ceil(states.length / options.perMoment));
      const base = `${model} ${replay.model.ticks.last} ${replay.durableHash}`;
      for (const stateOf of states.filter((_, index) => index % stride === 0)) {
        const state = stateOf();
        const key = createHash('sha1').update(base).update(state.identity).digest('base64');
        if (seen.has(key)) continue;
        seen.add(key);
        counters.states++;
        replay.world.restore(saved);
        moment.crash(replay.scope, state);
        await replay.verify(model).catch((error: unknown) => {
          const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
          const where = `${history.name}, order ${options.seed}, step ${steps}, ${model}, ${moment.describe(state)}`;
          throw new Error(`${where}\n  ${what}`, { cause: error });
        });
      }
    }
  }
  return counters;
}

/** Steps after which the devices or the promises are others than one step before. */
async function momentsOf(history: CacheHistory, seed: number): Promise<number[]> {
  const replay = await CacheReplay.until(history, seed, 0);
  const moments: number[] = [];
  let last = '';
  for (let steps = 0; ; steps++) {
    const { signature } = replay;
    if (signature !== last) moments.push(steps);
    last = signature;
    if (await replay.step()) return moments;
  }
}

/** A history, run up to some step of what is explored. */
class CacheReplay {
  readonly world: SimulatedWorld;
  readonly model: VolumeModel;
  readonly #identities = new WeakMap<object, number>();
  #lastIdentity = 0;
  #contents = 0;
  #work: () => Promise<unknown> = () => Promise.resolve();
  #working: Promise<unknown> | undefined;

  private constructor(seed: number) {
    this.world = new SimulatedWorld(`cache history ${seed}`, { stepsMax: Infinity });
    const backing = this.world.addDisk('backing', { size: BACKING_SIZE, noise: true });
    this.world.addDisk('image', { strictOverlap: true });
    this.model = new VolumeModel(backing.peek());
  }

  static async until(history: CacheHistory, seed: number, steps: number): Promise<CacheReplay> {
    const replay = new CacheReplay(seed);
    await replay.#prepare(history);
    for (let step = 0; step < steps; step++) await replay.step();
    return replay;
  }

  async #prepare({ before = [], opened = [], explored }: CacheHistory): Promise<void> {
    const { world } = this;
    const environment = world.environment();
    await world.run(() => CacheImage.create(world.device('image'), { size: IMAGE_SIZE, environment }));
    for (const { operations, end } of before) {
      const device = await world.run(() => this.#open(MODIFICATION));
      await world.run(() => this.#run(device, operations));
      if (end === 'close') await world.run(() => device.close());
      else this.#crash('power-cut');
    }
    if (explored === 'opening') this.#work = () => this.#open(MODIFICATION);
    else if (explored === 'opening another') this.#work = () => this.#open(OTHER_MODIFICATION);
    else {
      const device = await world.run(() => this.#open(MODIFICATION));
      await world.run(() => this.#run(device, opened));
      this.#work =
        explored === 'closing'
          ? () => device.close()
          : () => Promise.all(explored.map((operations) => this.#run(device, operations)));
    }
  }

  async #open(modificationId: string): Promise<CachedDevice> {
    const environment = this.world.environment();
    const image = await CacheImage.open(this.world.device('image'), { environment, memory: 65_536 });
    return CachedDevice.open(image, this.world.device('backing'), {
      fillSize: UNIT,
      readAhead: 0,
      modificationId,
    });
  }

  #crash(kind: 'power-cut' | 'kill'): void {
    this.world.crash(kind);
    this.model.crash(kind);
    this.model.reconcileVolume(this.world.disk('backing').peek());
  }

  async #run(device: CachedDevice, operations: readonly CacheOperation[]): Promise<void> {
    for (const operation of operations) await this.#operate(device, operation);
  }

  async #operate(device: CachedDevice, operation: CacheOperation): Promise<void> {
    if (!('at' in operation)) return this.#operateOnAll(device, operation.kind);
    const [offset, length] = [operation.at * UNIT, operation.units * UNIT];
    if (operation.kind === 'drop') {
      const { store } = device.image;
      return void (await store.drop(offset / 512, (offset + length) / 512));
    }
    if (operation.kind === 'read') {
      const read = this.model.beginRead();
      const target = new Uint8Array(length);
      await device.read(offset, target);
      return this.model.endRead(read, offset, target);
    }
    const isWrite = operation.kind === 'write';
    const bytes = isWrite ? this.#newContent(length) : new Uint8Array(length);
    const change = this.model.beginWrite(offset, bytes);
    await (isWrite ? device.write(offset, bytes) : device.discard?.(offset, length));
    this.model.endWrite(change);
  }

  async #operateOnAll(device: CachedDevice, kind: 'flush' | 'commit' | 'compact'): Promise<void> {
    if (kind === 'commit') return device.image.flush();
    if (kind === 'compact') return void (await device.image.compact());
    const flush = this.model.beginFlush();
    await device.flush();
    this.model.endFlush(flush);
  }

  /** Like nothing written before. */
  #newContent(length: number): Uint8Array {
    return new Uint8Array(length).fill(1 + (++this.#contents % 255));
  }

  /** One step further; true if that was the end. */
  async step(): Promise<boolean> {
    // The same promise each time: the task goes on where it was.
    const work = () => {
      this.#working ??= this.#work();
      return this.#working;
    };
    const { finished } = await this.world.runSteps(work, 1);
    return finished;
  }

  get scope(): CrashScope {
    const disks = [this.world.disk('backing'), this.world.disk('image')];
    return { world: this.world, directory: undefined, storeOffset: Infinity, disks };
  }

  /** Differs where a crash could leave something else, or where something else is promised. */
  get signature(): string {
    const identityOf = (change: object) => {
      const known = this.#identities.get(change) ?? ++this.#lastIdentity;
      this.#identities.set(change, known);
      return known;
    };
    const changes = this.scope.disks.map(({ content }) =>
      content.unflushed().map((change) => [identityOf(change), change.order]),
    );
    return JSON.stringify([changes, this.model.ticks.last]);
  }

  get durableHash(): string {
    const hash = createHash('sha1');
    for (const { content } of this.scope.disks) hash.update(content.durableBytes(0, content.durableSize));
    return hash.digest('base64');
  }

  /** After a crash: every byte is that of the backing, also after everything was written, and a second opening. */
  async verify(crash: 'power-cut' | 'kill'): Promise<void> {
    const { world } = this;
    const model = this.model.clone();
    model.crash(crash);
    model.reconcileVolume(world.disk('backing').peek());
    await this.#check(['damaged']);
    for (const round of ['first', 'second']) {
      const device = await world.run(() => this.#open(MODIFICATION));
      await world.run(() => this.#compare(device, `the ${round} opening`));
      await world.run(() => device.write(UNIT, new Uint8Array(3 * UNIT).fill(255)));
      await world.run(() => this.#compare(device, `a write after the ${round} opening`));
      await world.run(() => device.close());
      await this.#check(['damaged', 'unclean']);
    }
    if (world.violations.length > 0) throw new ModelMismatch(world.violations.join('; '));
  }

  async #check(codes: readonly string[]): Promise<void> {
    const { world } = this;
    const problems = await world.run(() => CacheImage.check(world.device('image', { writable: false })));
    const found = problems.filter(({ code }) => codes.includes(code));
    if (found.length > 0) throw new ModelMismatch(found.map(({ message }) => message).join('; '));
  }

  async #compare(device: CachedDevice, when: string): Promise<void> {
    const target = new Uint8Array(BACKING_SIZE);
    await device.read(0, target);
    const wrong = this.world
      .disk('backing')
      .peek()
      .findIndex((byte, index) => byte !== target[index]);
    if (wrong >= 0) throw new ModelMismatch(`byte ${wrong} is not that of the backing, after ${when}`);
  }
}
