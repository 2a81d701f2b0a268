/** Runs a program of Node.js that may hang. */
import { spawn } from 'node:child_process';

/** A run that shows nothing for so long hangs, which is one way to be caught. */
const SILENCE_SECONDS = 60;

/** How a run ended. */
export interface WatchedRun {
  /** `silent`: it was ended because it showed nothing; `late`: because its time was over. */
  readonly code: number | 'silent' | 'late';
  readonly output: string;
}

export interface WatchedOptions {
  readonly folder: string;
  /** Besides those of this process. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Is told of what it prints, as it does. */
  readonly onOutput?: (text: string) => void;
  /** It is ended then. Default: no limit. */
  readonly secondsMax?: number;
}

/** @param args of Node.js: the script, and what that takes */
export function runWatched(args: readonly string[], options: WatchedOptions): Promise<WatchedRun> {
  const { folder, variables, onOutput, secondsMax = Infinity } = options;
  const child = spawn(process.execPath, args, {
    cwd: folder,
    env: { ...process.env, ...variables },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return new Promise((resolve, reject) => {
    let output = '';
    let seconds = 0;
    let silentSince = 0;
    const listen = (chunk: Buffer) => {
      silentSince = seconds;
      output += chunk.toString();
      onOutput?.(chunk.toString());
    };
    // Counted, not measured: while the whole machine is stopped, nothing is silent.
    const watch = setInterval(() => {
      seconds++;
      if (seconds >= secondsMax || seconds - silentSince >= SILENCE_SECONDS) child.kill('SIGKILL');
    }, 1000);
    child.stdout.on('data', listen);
    child.stderr.on('data', listen);
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(watch);
      resolve({ code: code ?? (seconds >= secondsMax ? 'late' : 'silent'), output });
    });
  });
}
