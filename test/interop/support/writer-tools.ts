/** Programs that tests need besides Node.js: their absence is a visible skip, and in CI a failure. */
import { execFile, spawnSync } from 'node:child_process';

/** How to find out whether a program is there, where `--version` is not the way. */
const PROBES: Readonly<Record<string, readonly [string, ...string[]]>> = {
  pyvshadow: ['/usr/bin/python3', '-c', 'import pyvshadow'],
  vshadowinfo: ['vshadowinfo', '-V'],
  'nbdkit curl': ['nbdkit', 'curl', '--version'],
  debugfs: ['debugfs', '-V'],
  e2fsck: ['e2fsck', '-V'],
  'mkfs.ext4': ['mkfs.ext4', '-V'],
  mkntfs: ['mkntfs', '-V'],
  ntfscp: ['ntfscp', '-V'],
  ntfscat: ['ntfscat', '-V'],
  ntfsfix: ['ntfsfix', '-V'],
};

/**
 * Are all these programs there? For `describe.skipIf(!requireTool('mkntfs', 'ntfscp'))`.
 * @throws in CI, where none may be missing
 */
export function requireTool(...tools: readonly string[]): boolean {
  const missing = tools.filter((tool) => {
    const [program, ...given] = PROBES[tool] ?? [tool, '--version'];
    return spawnSync(program, given, { stdio: 'ignore' }).error !== undefined || !answers(program, given);
  });
  if (missing.length === 0) return true;
  const message = `not installed: ${missing.join(', ')}`;
  if (process.env.CI) throw new Error(`${message}; in CI nothing is skipped`);
  console.warn(`skipped, ${message}`);
  return false;
}

/** Some programs print their version and fail; a Python that lacks the module, or nbdkit the plugin, fails for good. */
function answers(program: string, given: readonly string[]): boolean {
  const { status } = spawnSync(program, given, { stdio: 'ignore' });
  return program.endsWith('python3') || program === 'nbdkit' ? status === 0 : status !== null;
}

export interface Ran {
  readonly status: number;
  readonly output: string;
}

/** Runs a program to its end, whatever its exit code. */
export function run(program: string, given: readonly string[], input?: string): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...given],
      { maxBuffer: 256 * 1024 * 1024, encoding: 'utf8' },
      (error, stdout, stderr) => {
        if (error !== null && typeof error.code !== 'number') reject(error);
        else resolve({ status: Number(error?.code ?? 0), output: stdout + stderr });
      },
    );
    if (input !== undefined) child.stdin?.end(input);
  });
}

/** Runs a program that must succeed; its standard output. */
export async function runWell(program: string, ...given: readonly string[]): Promise<string> {
  const { status, output } = await run(program, given);
  if (status !== 0)
    throw new Error(`${program} ${given.join(' ')} ended with ${status}: ${output.slice(-500)}`);
  return output;
}
