/** Bugs in snapshot sets, which happen to several volumes at once, and in the life of snapshots. */
import type { PlantedBug } from './bug.js';

const SET = 'snapshot/set.ts';

export const SET_BUGS: readonly PlantedBug[] = [
  {
    name: 'a member of a set counts without the record of the set',
    breaks: 'a power cut leaves a part of a set',
    sets: true,
    edits: [{ file: SET, find: 'other.publish(SnapshotState.setPending)', replace: 'other.publish(0)' }],
  },
  {
    name: 'the record of a set is written before its members are durable',
    breaks: 'a power cut leaves a part of a set',
    sets: true,
    edits: [{ file: SET, find: 'await withinLimit(clock', replace: 'void withinLimit(clock' }],
  },
  {
    name: 'the hold of one volume of a set is released early',
    breaks: 'blocks are overwritten that the new snapshot has no copy of',
    sets: true,
    edits: [
      {
        file: SET,
        find: 'await coordinator.publish(recordState);',
        replace: 'others[0]?.release();\n    await coordinator.publish(recordState);',
      },
    ],
  },
  {
    name: 'recovery keeps a member of a set without a record',
    breaks: 'a power cut leaves a part of a set',
    sets: true,
    edits: [
      {
        file: 'volume/leftovers.ts',
        find: "if (outcome === 'aborted') expired",
        replace:
          "if (outcome === 'aborted') completed.push(record);\n      else if (outcome === null) expired",
      },
    ],
  },
  {
    name: 'a writer is not told that there will be no set',
    breaks: 'an application stays frozen',
    sets: true,
    edits: [{ file: 'volume/snapshot-set.ts', find: 'await writers.abort();', replace: '' }],
  },
  {
    name: 'members of a set that failed are not withdrawn',
    breaks: 'a part of a set is there after a reopening',
    sets: true,
    edits: [
      {
        file: SET,
        find: 'if (isDecided) await creation.withdraw(cause);',
        replace: 'if (isDecided) void 0;',
      },
    ],
  },
  {
    name: 'volumes of a set are held one after the other',
    breaks: 'a set mixes two moments',
    sets: true,
    edits: [
      {
        file: SET,
        find: 'await allDone([\n    coordinator.hold(limitMs),\n    ...others.map((other) => other.hold(limitMs, () => announce(other))),\n  ]);',
        replace:
          'await coordinator.hold(limitMs);\n  for (const other of others) await other.hold(limitMs, () => announce(other));',
      },
    ],
  },
  {
    name: 'the record of a set is forgotten with its snapshot',
    breaks: 'members of a complete set go after a power cut',
    sets: 'commits',
    edits: [
      {
        file: 'store/control-file.ts',
        find: 'if (isRecord(known.entry.diffArea.state)) await this.#remember(storeId);',
        replace: 'void isRecord;',
      },
    ],
  },
  {
    name: 'the record of a set is believed before it is durable',
    breaks: 'a power cut after a killed process leaves a part of a set',
    sets: 'commits',
    edits: [
      {
        file: 'volume/set-outcome.ts',
        find: 'if (writable) await control.makeDurable();',
        replace: '',
      },
    ],
  },
  {
    name: 'a snapshot that is not persistent is found again',
    breaks: 'it is there after the volume was opened again',
    edits: [
      {
        file: 'volume/leftovers.ts',
        find: "if ((state & SnapshotState.volatile) !== 0) expired.push({ record, reason: 'not-persistent' });",
        replace: 'if (state < 0) continue;',
      },
    ],
  },
  {
    name: 'a snapshot that expired is deleted although a revert needs it',
    breaks: 'the volume does not open while it is put back',
    edits: [
      {
        file: 'volume/leftovers.ts',
        find: 'if (chain.keeping.isNeeded(record)) record.expired = reason;',
        replace: 'if (chain.keeping.isNeeded(record) && reason === null) record.expired = reason;',
      },
    ],
  },
];
