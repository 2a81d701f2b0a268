/** How the oracle says what is wrong. */

/** The engine showed something that no right engine can show. */
export class ModelMismatch extends Error {
  override readonly name = 'ModelMismatch';
}

const EXPLAINED_MAX = 8;

/** @throws ModelMismatch if anything is wrong; of a lot only the first are told */
export function report(wrong: readonly string[]): void {
  if (wrong.length === 0) return;
  const rest = wrong.length > EXPLAINED_MAX ? [`and ${wrong.length - EXPLAINED_MAX} more`] : [];
  throw new ModelMismatch([...wrong.slice(0, EXPLAINED_MAX), ...rest].join('\n'));
}
