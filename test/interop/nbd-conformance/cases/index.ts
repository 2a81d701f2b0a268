import type { Case } from '../case.ts';
import { blockStatusCases } from './block-status.ts';
import { commandCases } from './commands.ts';
import { exportNameCases } from './export-name.ts';
import { extendedCases } from './extended.ts';
import { greetingCases } from './greeting.ts';
import { hostileCases } from './hostile.ts';
import { infoGoCases } from './info-go.ts';
import { metaContextCases } from './meta-context.ts';
import { readCases } from './reads.ts';
import { tlsCases } from './tls.ts';
import { writeCases } from './writes.ts';

/** All cases, in the order of the document. */
export const CHAPTERS: readonly { readonly title: string; readonly cases: readonly Case[] }[] = [
  { title: 'Greeting and options', cases: greetingCases },
  { title: 'EXPORT_NAME, for clients of old', cases: exportNameCases },
  { title: 'INFO and GO', cases: infoGoCases },
  { title: 'Structured replies and contexts', cases: metaContextCases },
  { title: 'TLS', cases: tlsCases },
  { title: 'Reading', cases: readCases },
  { title: 'Writing', cases: writeCases },
  { title: 'Commands, cookies, order', cases: commandCases },
  { title: 'Block status', cases: blockStatusCases },
  { title: 'Extended headers', cases: extendedCases },
  { title: 'Hostile and broken peers', cases: hostileCases },
];
