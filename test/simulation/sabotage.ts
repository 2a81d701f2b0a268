/**
 * Plants a bug into a copy of the engine and runs the simulation there until it is caught.
 *
 * The checkout itself is never touched: sources and simulation are copied into a temporary folder, and the simulation
 * runs there in a process of its own, which also ends one that loops for ever.
 */
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Edit, type PlantedBug, SMALL_BLOCKS } from './planted/bug.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** What a run needs; of the interoperability tests the images that they make. */
const PARTS = ['src', 'test/simulation', 'test/interop/support', 'package.json', 'tsconfig.json'];
/** A run that shows nothing for so long hangs, which is one way to be caught. */
const SILENCE_MS = 60_000;

export interface Hunt {
  readonly seed: number;
  readonly runs: number;
  readonly cycles: number;
}

export interface Catch {
  readonly caught: boolean;
  /** Seeds that it took. */
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

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async make(edits: readonly Edit[]): Promise<SabotagedCopy> {
    const copy = new SabotagedCopy(await mkdtemp(join(tmpdir(), 'volsnap-planted-')));
    for (const part of PARTS) await cp(join(ROOT, part), join(copy.folder, part), { recursive: true });
    await symlink(join(ROOT, 'node_modules'), join(copy.folder, 'node_modules'));
    for (const edit of edits) await copy.#apply(edit);
    return copy;
  }

  async #apply(edit: Edit): Promise<void> {
    const path = join(this.folder, 'src', edit.file);
    await writeFile(path, applied(await readFile(path, 'utf8'), edit));
  }

  /**
   * Runs a script of the simulation in the copy.
   * @param onOutput is told of what it prints, as it does
   * @returns `undefined` if it had to be ended because it showed nothing
   */
  run(
    script: string,
    args: readonly string[],
    onOutput: (text: string) => void = () => undefined,
  ): Promise<{ code: number; output: string } | undefined> {
    const path = join(this.folder, 'test/simulation', script);
    const child = spawn(process.execPath, ['--import', 'tsx', path, ...args], {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new Promise((resolve, reject) => {
      let output = '';
      let silence: NodeJS.Timeout | undefined;
      const listen = (chunk?: Buffer) => {
        const text = chunk?.toString() ?? '';
        output += text;
        onOutput(text);
        clearTimeout(silence);
        silence = setTimeout(() => child.kill('SIGKILL'), SILENCE_MS);
      };
      listen();
      child.stdout.on('data', listen);
      child.stderr.on('data', listen);
      child.on('error', reject);
      child.on('close', (code) => {
        clearTimeout(silence);
        resolve(code === null ? undefined : { code, output });
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
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
  return result?.code ?? 1;
}

/** The changes that a bug, or none, makes to the engine. */
export const editsOf = (bug: PlantedBug): readonly Edit[] => [
  ...(bug.smallBlocks ? SMALL_BLOCKS : []),
  ...bug.edits,
];

/** Runs seed after seed, or crash after crash, against a sabotaged engine until one shows the bug. */
export async function hunt(bug: PlantedBug, { seed, runs, cycles }: Hunt): Promise<Catch> {
  const started = performance.now();
  await using copy = await SabotagedCopy.make(editsOf(bug));
  const run = (script: string, ...args: readonly (string | number)[]) => copy.run(script, args.map(String));
  const result =
    bug.history === undefined
      ? await run(
          bug.sets ? 'sets.ts' : 'simulate.ts',
          ...['--seed', seed, '--runs', runs, '--cycles', cycles, '--progress', 1],
          ...(bug.sets === 'commits' ? ['--commits'] : []),
          ...(bug.rot ? ['--rot'] : []),
          ...(bug.about === undefined ? [] : ['--about', bug.about]),
        )
      : await run(
          'exhaustive.ts',
          ...['--chains', '--seed', seed, '--seeds', bug.history.orders ?? 1],
          ...['--history', bug.history.name, '--layout', bug.history.layout],
        );
  const seconds = (performance.now() - started) / 1000;
  const output = result?.output ?? '';
  // A copy that does not even start shows nothing.
  if (/TransformError|ERR_MODULE_NOT_FOUND|Cannot find module/.test(output)) {
    throw new Error(`${bug.name}: does not run\n${output}`);
  }
  const last = Number([...output.matchAll(/^seed (\d+)/gm)].at(-1)?.[1] ?? seed);
  const caught = result === undefined || result.code !== 0;
  const seeds = caught ? last - seed + 1 : runs;
  return { caught, seeds, seed: last, message: result === undefined ? 'hangs' : messageOf(output), seconds };
}

/** The first line that says what was found. */
function messageOf(output: string): string {
  const lines = output.split('\n');
  const line = lines.find((text) => /cycle \d+: /.test(text)) ?? lines.find((text) => /Error\b/.test(text));
  return (line ?? '').replace(/^.*cycle \d+: /, '').trim();
}
