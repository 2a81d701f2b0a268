/** Opens the volume named on the command line, in a process that does nothing else; prints what that took, as JSON. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { FileDevice, Volume } from '../../src/index.js';

export interface Opened {
  readonly milliseconds: number;
  /** Milliseconds for which processors were busy with it; other processes on the machine disturb that less. */
  readonly busy: number;
  /** Heap and buffers, of which the unused is collected, less what the process had before. */
  readonly bytes: number;
  /** The most of the same at any time, with what was waiting to be collected. */
  readonly mostBytes: number;
  /** Milliseconds for which nothing else could run. */
  readonly longestTurn: number;
}

const held = (): number => {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};

async function open(name: string): Promise<Opened> {
  globalThis.gc?.();
  const before = held();
  let mostBytes = 0;
  const look = setInterval(() => {
    mostBytes = Math.max(mostBytes, held() - before);
  }, 5);
  const turns = monitorEventLoopDelay({ resolution: 1 });
  turns.enable();
  const usedBefore = process.cpuUsage();
  const started = performance.now();
  const volume = await Volume.open(await FileDevice.open(name, { writable: true }));
  const milliseconds = performance.now() - started;
  const used = process.cpuUsage(usedBefore);
  mostBytes = Math.max(mostBytes, held() - before);
  turns.disable();
  clearInterval(look);
  globalThis.gc?.();
  globalThis.gc?.();
  const bytes = held() - before;
  await volume.close();
  return {
    milliseconds,
    busy: (used.user + used.system) / 1000,
    bytes,
    mostBytes,
    longestTurn: turns.max / 1e6,
  };
}

const [, , name] = process.argv;
if (name !== undefined) console.log(JSON.stringify(await open(name)));
