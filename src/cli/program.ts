/**
 * The program as a whole: its commands, and how each of them ends.
 *
 * A command ends by returning, or by throwing what `failureOf` explains. Nothing here calls `process.exit`: it would cut
 * off output that is on its way.
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { cacheCommand } from './commands/cache.js';
import { checkCommand } from './commands/check.js';
import { copyRangeCommand } from './commands/copy-range.js';
import { createCommand } from './commands/create.js';
import { deleteCommand } from './commands/delete.js';
import { diffCommand } from './commands/diff.js';
import { exportCommand } from './commands/export.js';
import { growCommand } from './commands/grow.js';
import { holdCommand, releaseCommand } from './commands/hold.js';
import { infoCommand } from './commands/info.js';
import { initCommand } from './commands/init.js';
import { listCommand } from './commands/list.js';
import { mapCommand } from './commands/map.js';
import { policyCommand } from './commands/policy.js';
import { readCommand } from './commands/read.js';
import { resizeStoreCommand } from './commands/resize-store.js';
import { revertCommand } from './commands/revert.js';
import { serveCommand } from './commands/serve.js';
import { setSnapshotCommand } from './commands/set-snapshot.js';
import { writeCommand } from './commands/write.js';
import { failureOf, isAbort, Status } from './failure.js';
import { Interruption } from './interruption.js';
import { Notes, Output } from './output.js';
import type { Runner } from './session.js';

const COMMANDS = [
  initCommand,
  createCommand,
  listCommand,
  infoCommand,
  readCommand,
  writeCommand,
  copyRangeCommand,
  exportCommand,
  diffCommand,
  mapCommand,
  deleteCommand,
  revertCommand,
  holdCommand,
  releaseCommand,
  setSnapshotCommand,
  growCommand,
  resizeStoreCommand,
  policyCommand,
  checkCommand,
  serveCommand,
  cacheCommand,
] as const;

/** Runs the command that `argv` (without program and script) names. @returns the exit status */
export async function runProgram(argv: readonly string[]): Promise<number> {
  const interruption = new Interruption();
  const output = new Output(interruption.signal);
  const said: Said = { output: '', errors: '' };
  // Until the command line is understood, this is the best guess at what it wants.
  let notes = new Notes(argv.includes('--json'));
  let status: number = Status.done;
  let failedStatus: number = Status.failed;
  const run: Runner =
    (body, failed = Status.failed) =>
    async (...args) => {
      const command = args.at(-1);
      const json = command instanceof Command && command.opts().json === true;
      notes = new Notes(json);
      failedStatus = failed;
      status = (await body({ json, signal: interruption.signal, output, notes }, ...args)) ?? Status.done;
    };
  try {
    await programOf(run, said)
      .parseAsync(argv, { from: 'user' })
      .catch((error: unknown) => writeHelp(error, said, output));
  } catch (error) {
    status = tellFailure(error, failedStatus, said, notes);
    if (isAbort(error)) interruption.raise();
  }
  interruption.forget();
  return status;
}

/** What commander said: help goes to one of the two, complaints are told from the error instead. */
interface Said {
  output: string;
  errors: string;
}

function programOf(run: Runner, said: Said): Command {
  const program = new Command('volsnap')
    .description('Copy-on-write snapshots of volumes: disk images and block devices.')
    .version(packageVersion(), '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [COMMAND]', 'show the help of a command')
    .configureHelp({ showGlobalOptions: false, subcommandTerm: (command) => command.name() })
    .addHelpText(
      'after',
      `
Sizes are bytes, or take K, M, G, T (powers of 1024). Ids may be shortened while they stay clear.
Exit status: 0 done, 1 failed, 2 wrong usage.

Example:
  $ volsnap init disk.img
  $ volsnap create disk.img --label 'before the upgrade'
  $ volsnap list disk.img
`,
    )
    .configureOutput({
      writeOut: (text) => {
        said.output += text;
      },
      writeErr: (text) => {
        said.errors += text;
      },
      outputError: () => undefined,
    })
    .exitOverride();
  for (const commandOf of COMMANDS) {
    const command = commandOf(run);
    program.addCommand(command.copyInheritedSettings(program));
    for (const part of command.commands) part.copyInheritedSettings(command);
  }
  return program;
}

/** Help and version that were asked for, which commander ends with an error. Throws any other one again. */
async function writeHelp(error: unknown, said: Said, output: Output): Promise<void> {
  if (!(error instanceof CommanderError) || error.exitCode !== 0) throw error;
  await output.write(Buffer.from(said.output));
}

function tellFailure(error: unknown, failedStatus: number, said: Said, notes: Notes): number {
  if (error instanceof CommanderError && said.errors !== '') {
    notes.say(said.errors.trimEnd());
    return Status.usage;
  }
  const { code, message, status } = failureOf(error, failedStatus);
  notes.error(code, message);
  if (process.env.VOLSNAP_DEBUG && error instanceof Error) notes.say(error.stack ?? '');
  return status;
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return version;
}
