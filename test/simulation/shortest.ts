/** Makes a plan that fails shorter. */
import { shrink } from '../../src/testing/index.js';
import type { Cycle, Operation, Plan } from './plan.js';
import { PromiseBroken, runPlan } from './run.js';

/** One thing that can be left out: a whole cycle, an operation, or something special about a cycle. */
type Item =
  | { readonly cycle: number; readonly kind: 'cycle' }
  | { readonly cycle: number; readonly kind: 'operation' | 'while late'; readonly operation: Operation }
  | { readonly cycle: number; readonly kind: 'late' }
  | { readonly cycle: number; readonly kind: 'crashes while opening' | 'faults' | 'check' };

/** The shortest plan found that still breaks a promise. @throws InvalidArgumentError if the plan breaks none */
export async function shortest(plan: Plan, attemptsMax = 400): Promise<Plan> {
  const kept = await shrink(itemsOf(plan), async (items) => fails(planOf(plan, items)), { attemptsMax });
  return planOf(plan, kept);
}

/** The plan for people: a line for the volume, and one for each cycle and each operation. */
export function describePlan({ cycles, growth, ...volume }: Plan): string {
  const lines = cycles.flatMap(({ operations, late, ...cycle }) => [
    ...(late === undefined ? [] : [`late ${JSON.stringify({ ...late, operations: undefined })}`]),
    ...(late?.operations ?? []).map((operation) => `  ${JSON.stringify(operation)}`),
    JSON.stringify(cycle),
    ...operations.map((operation) => `  ${JSON.stringify(operation)}`),
  ]);
  const count = cycles.reduce((sum, { operations }) => sum + operations.length, 0);
  return [
    `shortest plan: ${cycles.length} ${cycles.length === 1 ? 'cycle' : 'cycles'}, ${count} ${count === 1 ? 'operation' : 'operations'}`,
    JSON.stringify({ ...volume, growth }),
    ...lines,
  ].join('\n');
}

const itemsOf = (plan: Plan): Item[] =>
  plan.cycles.flatMap(({ operations, late, crashesWhileOpening, faultRate, check }, cycle): Item[] => [
    { cycle, kind: 'cycle' },
    ...(late === undefined ? [] : [{ cycle, kind: 'late' } as const]),
    ...(late?.operations ?? []).map((operation) => ({ cycle, kind: 'while late', operation }) as const),
    ...(check ? [{ cycle, kind: 'check' } as const] : []),
    ...(faultRate > 0 ? [{ cycle, kind: 'faults' } as const] : []),
    ...(crashesWhileOpening.length > 0 ? [{ cycle, kind: 'crashes while opening' } as const] : []),
    ...operations.map((operation) => ({ cycle, kind: 'operation', operation }) as const),
  ]);

function planOf(plan: Plan, items: readonly Item[]): Plan {
  const cycles: Cycle[] = [];
  for (const [index, cycle] of plan.cycles.entries()) {
    const own = items.filter((item) => item.cycle === index);
    const has = (kind: Item['kind']) => own.some((item) => item.kind === kind);
    // Without its cycle nothing of it is left.
    if (!has('cycle')) continue;
    const operationsOf = (kind: 'operation' | 'while late') =>
      own.flatMap((item) => (item.kind === kind ? item.operation : []));
    const { late, ...rest } = cycle;
    const isLate = late !== undefined && has('late');
    cycles.push({
      ...rest,
      ...(isLate ? { late: { ...late, operations: operationsOf('while late') } } : {}),
      operations: operationsOf('operation'),
      crashesWhileOpening: has('crashes while opening') ? cycle.crashesWhileOpening : [],
      faultRate: has('faults') ? cycle.faultRate : 0,
      check: has('check'),
    });
  }
  // With fewer crashes it has another name.
  return { ...plan, cycles, outcome: undefined };
}

async function fails(plan: Plan): Promise<boolean> {
  try {
    await runPlan(plan);
    return false;
  } catch (error) {
    if (error instanceof PromiseBroken) return true;
    throw error;
  }
}
