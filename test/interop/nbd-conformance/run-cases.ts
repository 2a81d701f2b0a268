/** Runs cases one after the other; a server that no longer answers afterwards is a finding of its own. */
import { type Case, Context, type Target } from './case.ts';
import { Absent, Deviation, type Level } from './verdict.ts';

export type Outcome =
  | { readonly kind: 'as-written' }
  | { readonly kind: 'absent'; readonly detail: string }
  | { readonly kind: 'deviates'; readonly level: Level; readonly detail: string }
  | { readonly kind: 'broke'; readonly detail: string };

const AS_WRITTEN: Outcome = { kind: 'as-written' };

export async function runCase(one: Case, target: Target): Promise<Outcome> {
  const outcome = await attempt(one.level, target, (context) => one.run(context));
  const after = await attempt('must', target, (context) => context.stillServes());
  if (after.kind === 'as-written') return outcome;
  return { kind: 'broke', detail: `afterwards a new connection is not served: ${detailOf(after)}` };
}

async function attempt(
  level: Level,
  target: Target,
  action: (context: Context) => Promise<void>,
): Promise<Outcome> {
  const context = new Context(target);
  try {
    await action(context);
    return AS_WRITTEN;
  } catch (error) {
    if (error instanceof Absent) return { kind: 'absent', detail: error.message };
    if (error instanceof Deviation)
      return { kind: 'deviates', level: error.level ?? level, detail: error.message };
    return { kind: 'broke', detail: error instanceof Error ? String(error.stack) : String(error) };
  } finally {
    context.close();
  }
}

export const detailOf = (outcome: Outcome): string => ('detail' in outcome ? outcome.detail : '');
