/**
 * Plants a bug into a copy of the engine and runs the simulation there until it is caught.
 *
 * The checkout itself is never touched: what runs is bundled into a temporary folder, with the changes made on the way, and
 * runs there in a process of its own, which also ends one that loops for ever.
 */
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { type Edit, type PlantedBug, SMALL_BLOCKS } from './planted/bug.js';
import { huntByTest } from './unit-hunt.js';
import { runWatched, type WatchedRun } from './watched.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export interface Hunt {
  readonly seed: number;
  readonly runs: number;
  readonly cycles: number;
  /** No further seed begins after so long; crashes of a history are given up then. Default: no limit. */
  readonly seconds?: number;
  /** Of plans: further outcomes of each crash, and further moments in each cycle. Default: none. */
  readonly outcomes?: number;
  readonly moments?: number;
}

export interface Catch {
  readonly caught: boolean;
  /** Seeds that it took; all that were tried if it was not caught. */
  readonly seeds: number;
  /** The seed that showed it. */
  readonly seed: number;
  /** What was found. */
  readonly message: string;
  readonly seconds: number;
}

/** A copy of the engine with changes made to it; gone when disposed. */
export class SabotagedCopy implements AsyncDisposable {
  readonly folder: string;
  readonly #edits: readonly Edit[];

  private constructor(folder: string, edits: readonly Edit[]) {
    this.folder = folder;
    this.#edits = edits;
  }

  static async make(edits: readonly Edit[]): Promise<SabotagedCopy> {
    const copy = new SabotagedCopy(await mkdtemp(join(tmpdir(), 'volsnap-planted-')), edits);
    await symlink(join(ROOT, 'node_modules'), join(copy.folder, 'node_modules'));
    return copy;
  }

  /** @throws Error if a change can not be made, or is of a file that the script does not use */
  async #bundle(script: string): Promise<string> {
    const left = new Set(this.#edits);
    const outfile = join(this.folder, script.replace(/\.ts$/, '.mjs'));
    await build({
      entryPoints: [join(ROOT, 'test/simulation', script)],
      outfile,
      bundle: true,
      packages: 'external',
      platform: 'node',
      format: 'esm',
      target: 'node20',
      keepNames: true,
      logLevel: 'silent',
      plugins: [planting(this.#edits, (edit) => left.delete(edit))],
    });
    for (const { file } of left)
      throw new Error(`${script} does not use src/${file}, which a planted bug changes`);
    return outfile;
  }

  /**
   * Runs a script of the simulation in the copy.
   * @param onOutput is told of what it prints, as it does
   * @param secondsMax it is ended then
   */
  async run(
    script: string,
    args: readonly string[],
    onOutput: (text: string) => void = () => undefined,
    secondsMax = Infinity,
  ): Promise<WatchedRun> {
    const path = await this.#bundle(script);
    return runWatched([path, ...args], { folder: this.folder, onOutput, secondsMax });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Makes the changes to sources as they are bundled. */
function planting(edits: readonly Edit[], onMade: (edit: Edit) => void): Plugin {
  const root = join(ROOT, 'src/');
  return {
    name: 'planting',
    setup({ onLoad }) {
      onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const own = edits.filter(({ file }) => path === join(root, file));
        if (own.length === 0) return undefined;
        let contents = await readFile(path, 'utf8');
        for (const edit of own) {
          contents = applied(contents, edit);
          onMade(edit);
        }
        return { contents, loader: 'ts' };
      });
    },
  };
}

/** The text with the change made. @throws if what is to be changed is not there exactly once */
export function applied(text: string, { file, find, replace }: Edit): string {
  const parts = text.split(find);
  if (parts.length !== 2) {
    throw new Error(
      `src/${file} has ${parts.length - 1} times what a planted bug changes; adapt test/simulation/planted to it:\n${find}`,
    );
  }
  return parts.join(replace);
}

/** Runs a script, without a bug, on small metadata blocks. @returns its exit code */
export async function runOnSmallBlocks(script: string, args: readonly string[]): Promise<number> {
  await using copy = await SabotagedCopy.make(SMALL_BLOCKS);
  const result = await copy.run(script, args, (text) => process.stdout.write(text));
  return typeof result.code === 'number' ? result.code : 1;
}

/** The changes that a bug, or none, makes to the engine. */
export const editsOf = (bug: PlantedBug): readonly Edit[] => [
  ...(bug.smallBlocks ? SMALL_BLOCKS : []),
  ...bug.edits,
];

/** A copy with a mistake of another kind than the one that is looked for. */
const UNFIT =
  /ReferenceError|SyntaxError|RangeError|is not defined|is not a function|ERR_MODULE_NOT_FOUND|Cannot find module/;
/** Crashes of a history, and one seed, may go on for so long after the time is over. */
const GRACE_SECONDS = 90;

/** Runs seed after seed, or crash after crash, against a sabotaged engine until one shows the bug. */
export async function hunt(
  bug: PlantedBug,
  { seed, runs, cycles, seconds = Infinity, outcomes = 0, moments = 0 }: Hunt,
): Promise<Catch> {
  const started = performance.now();
  const secondsGone = () => (performance.now() - started) / 1000;
  if (bug.unitTest !== undefined) {
    const found = await huntByTest(bug.unitTest, editsOf(bug));
    return { ...found, seeds: 1, seed: 1, seconds: secondsGone() };
  }
  await using copy = await SabotagedCopy.make(editsOf(bug));
  const run = (script: string, ...args: readonly (string | number)[]) =>
    copy.run(script, args.map(String), undefined, seconds + GRACE_SECONDS);
  const { code, output } =
    bug.history === undefined
      ? await run(
          bug.sets ? 'sets.ts' : 'simulate.ts',
          ...['--seed', seed, '--runs', runs, '--cycles', cycles, '--progress', 1],
          ...(seconds === Infinity ? [] : ['--seconds', seconds]),
          ...(bug.sets ? [] : ['--outcomes', outcomes, '--moments', moments]),
          ...(bug.sets === 'commits' ? ['--commits'] : []),
          ...(bug.rot ? ['--rot'] : []),
          ...(bug.about === undefined ? [] : ['--about', bug.about]),
          ...(bug.outcomes === undefined ? [] : ['--outcomes', bug.outcomes]),
        )
      : await run(
          'exhaustive.ts',
          ...['--chains', '--seed', seed, '--seeds', bug.history.orders ?? 1],
          ...['--history', bug.history.name, '--layout', bug.history.layout],
          ...(bug.history.statesMax === undefined
            ? []
            : ['--limit', bug.history.statesMax, '--per-moment', bug.history.statesMax]),
        );
  const caught = code !== 0 && code !== 'late';
  const message = code === 'silent' ? 'hangs' : messageOf(output);
  if (caught && UNFIT.test(message === '' ? output : message))
    throw new Error(`${bug.name}: does not run\n${output}`);
  const tried = /^(\d+) seeds from/m.exec(output)?.[1];
  const told = Number([...output.matchAll(/^seed (\d+)/gm)].at(-1)?.[1] ?? seed);
  const last = tried === undefined ? told : seed + Number(tried) - 1;
  return {
    caught,
    seeds: last - seed + 1,
    seed: last,
    message: caught ? message : '',
    seconds: secondsGone(),
  };
}

/** The first line that says what was found. */
function messageOf(output: string): string {
  const lines = output.split('\n');
  const line = lines.find((text) => /cycle \d+: /.test(text)) ?? lines.find((text) => /Error\b/.test(text));
  return (line ?? '').replace(/^.*cycle \d+: /, '').trim();
}
