/** Which signals end a command cleanly, and which at once. */
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { Interruption } from '../../../src/cli/interruption.js';

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function interruption() {
  vi.useFakeTimers({ toFake: ['performance'] });
  const killed = vi.spyOn(process, 'kill').mockReturnValue(true);
  const interruption = new Interruption();
  onTestFinished(() => interruption.forget());
  return { interruption, killed };
}

test('a signal that comes twice at once, as from timeout(1) and npm, is one', () => {
  const { interruption: received, killed } = interruption();
  process.emit('SIGTERM', 'SIGTERM');
  vi.advanceTimersByTime(50);
  process.emit('SIGTERM', 'SIGTERM');
  expect(received.signal.aborted).toBe(true);
  expect(killed).not.toHaveBeenCalled();
});

test('a second signal that somebody sent ends the process at once', () => {
  const { killed } = interruption();
  process.emit('SIGTERM', 'SIGTERM');
  vi.advanceTimersByTime(400);
  process.emit('SIGINT', 'SIGINT');
  expect(killed).toHaveBeenCalledExactlyOnceWith(process.pid, 'SIGTERM');
});
