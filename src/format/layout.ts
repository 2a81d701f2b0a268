/**
 * The layout of every structure on disk as text, from the tables that the codecs use. A test pins it, so that no field
 * ever moves unnoticed.
 */
import { COORDINATOR, INFORMATION, SECTION } from './application-information.js';
import { HEADER } from './block-header.js';
import * as constants from './constants.js';
import { DIFF_AREA_ITEM, SNAPSHOT_ITEM } from './control-block.js';
import { EXTENSION } from './extension.js';
import { LOCATION } from './location-block.js';
import { START } from './start-block.js';
import type { Structure } from './structure.js';
import { ENTRY } from './table-block.js';

const STRUCTURES: readonly Structure[] = [
  HEADER,
  EXTENSION,
  START,
  SNAPSHOT_ITEM,
  DIFF_AREA_ITEM,
  ENTRY,
  LOCATION,
  INFORMATION,
  SECTION,
  COORDINATOR,
];

/** One line a constant and a field: name, offset, size in bytes. */
export function describeLayout(): string {
  const lines: string[] = [];
  for (const [name, value] of Object.entries(constants).sort(([a], [b]) => (a < b ? -1 : 1)))
    if (typeof value !== 'object') lines.push(`${name} = ${value}`);
  lines.push(
    `block types: ${Object.entries(constants.BlockType)
      .map(([name, type]) => `${type} ${name}`)
      .join(', ')}`,
  );
  for (const { name, size, at, sizes } of STRUCTURES) {
    lines.push(`${name}: ends at ${size}`);
    for (const [field, length] of Object.entries(sizes))
      lines.push(`  ${String(at[field]).padStart(3)} ${String(length).padStart(3)} ${field}`);
  }
  return lines.join('\n');
}
