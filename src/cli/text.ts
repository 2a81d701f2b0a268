/** Text that is safe and tidy on a terminal. */

/** One line without control characters, whatever a label, a file name or a damaged volume holds. */
export const oneLine = (text: string): string =>
  text.replace(/[\r\n\t]+/g, ' ').replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, '\ufffd');

/** As a word of a command that people copy into a shell. */
export const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** Lines of `name  value` pairs with the values under each other. The names are ours, a column a character. */
export function pairLines(pairs: readonly (readonly [name: string, value: string])[]): string[] {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `  ${name}${' '.repeat(width - name.length)}  ${value}`);
}
