/** The oracle accepts every outcome that the promises permit and refuses every other; sequences below tell which is which. */
import { describe, expect, test } from 'vitest';
import { ModelMismatch, stampSectors, Ticks, VolumeModel } from '../../../src/testing/index.js';

const SECTOR = 512;
const SECTORS = 64;
const NONE = new Map<string, Uint8Array>();

/** Sectors of a write `sequence`. */
const at = (sector: number, sequence: number, count = 1) =>
  stampSectors(new Uint8Array(count * SECTOR), sector * SECTOR, sequence);

/** A volume that is as of write 0, except for some sectors. */
function volume(sequences: Readonly<Record<number, number>> = {}): Uint8Array {
  const bytes = at(0, 0, SECTORS);
  for (const [sector, sequence] of Object.entries(sequences)) {
    bytes.set(at(Number(sector), sequence), Number(sector) * SECTOR);
  }
  return bytes;
}

const make = (ticks?: Ticks) => new VolumeModel(volume(), ticks);

const begin = (model: VolumeModel, sector: number, sequence: number, count = 1) =>
  model.beginWrite(sector * SECTOR, at(sector, sequence, count));
const write = (model: VolumeModel, sector: number, sequence: number, count = 1) =>
  model.endWrite(begin(model, sector, sequence, count));
const flush = (model: VolumeModel) => model.endFlush(model.beginFlush());
const snapshot = (model: VolumeModel, name: string) => {
  model.beginSnapshot(name);
  model.endSnapshot(name);
};

/** Runs the same history for each outcome: which are accepted? */
function accepted<T>(outcomes: readonly T[], history: (outcome: T) => void): T[] {
  return outcomes.filter((outcome) => {
    try {
      history(outcome);
      return true;
    } catch (error) {
      expect(error).toBeInstanceOf(ModelMismatch);
      return false;
    }
  });
}

/** Sequences that sector 0 may have after the history and a power cut, or a kill. */
const afterCrash = (history: (model: VolumeModel) => void, kind: 'power-cut' | 'kill' = 'power-cut') =>
  accepted([0, 1, 2, 3, 4], (sequence) => {
    const model = make();
    history(model);
    model.crash(kind);
    model.reconcile(volume({ 0: sequence }), NONE);
  });

describe('after a crash', () => {
  test('a sector holds its last flushed value or any later one', () => {
    expect(afterCrash((model) => write(model, 0, 1))).toEqual([0, 1]);
    expect(
      afterCrash((model) => {
        write(model, 0, 1);
        flush(model);
      }),
    ).toEqual([1]);
    expect(
      afterCrash((model) => {
        write(model, 0, 1);
        write(model, 0, 2);
        flush(model);
        write(model, 0, 3);
        begin(model, 0, 4);
      }),
    ).toEqual([2, 3, 4]);
  });

  test('a flush is about writes that ended before it began', () => {
    const during = afterCrash((model) => {
      write(model, 0, 1);
      const call = model.beginFlush();
      write(model, 0, 2);
      model.endFlush(call);
    });
    expect(during).toEqual([1, 2]);
    const inFlight = afterCrash((model) => {
      const call = begin(model, 0, 1);
      flush(model);
      model.endWrite(call);
    });
    expect(inFlight).toEqual([0, 1]);
  });

  test('a flush that failed, or did not return, proves nothing', () => {
    expect(
      afterCrash((model) => {
        write(model, 0, 1);
        model.endFlush(model.beginFlush(), 'failed');
      }),
    ).toEqual([0, 1]);
    expect(
      afterCrash((model) => {
        write(model, 0, 1);
        model.beginFlush();
      }),
    ).toEqual([0, 1]);
  });

  test('a write that failed is in or out, whatever was flushed since', () => {
    const failed = (model: VolumeModel) => {
      write(model, 0, 1);
      flush(model);
      model.endWrite(begin(model, 0, 2), 'failed');
      flush(model);
    };
    expect(afterCrash(failed)).toEqual([1, 2]);
    expect(
      afterCrash((model) => {
        failed(model);
        write(model, 0, 3);
        flush(model);
      }),
    ).toEqual([3]);
  });

  test('overlapping writes that were flushed may stand in either order, until one after them', () => {
    const overlapping = (model: VolumeModel) => {
      const first = begin(model, 0, 1);
      const second = begin(model, 0, 2);
      model.endWrite(second);
      model.endWrite(first);
      flush(model);
    };
    expect(afterCrash(overlapping)).toEqual([1, 2]);
    expect(
      afterCrash((model) => {
        overlapping(model);
        write(model, 0, 3);
      }),
    ).toEqual([1, 2, 3]);
    expect(
      afterCrash((model) => {
        overlapping(model);
        write(model, 0, 3);
        flush(model);
      }),
    ).toEqual([3]);
  });

  test('each sector stands for itself', () => {
    const model = make();
    write(model, 0, 1, 4);
    model.crash('power-cut');
    model.reconcile(volume({ 0: 1, 2: 1 }), NONE);
    model.check(volume({ 0: 1, 2: 1 }));
    expect(() => model.check(volume({ 0: 1, 1: 1, 2: 1 }))).toThrow('sector 1 is too new');
  });

  test('a discard is a write of zeros', () => {
    const model = make();
    model.endWrite(model.beginDiscard(0, 2 * SECTOR));
    model.crash('power-cut');
    const bytes = volume();
    bytes.fill(0, 0, SECTOR);
    model.reconcile(bytes, NONE);
    model.check(bytes);
  });

  test('what was found is all there is from then on', () => {
    const model = make();
    write(model, 0, 1);
    begin(model, 0, 2);
    model.crash('power-cut');
    model.reconcile(volume({ 0: 1 }), NONE);
    expect(() => model.check(volume({ 0: 2 }))).toThrow(ModelMismatch);
    model.crash('power-cut');
    expect(() => model.reconcile(volume(), NONE)).toThrow('too old');
  });

  test('a killed process loses nothing that returned', () => {
    expect(afterCrash((model) => write(model, 0, 1), 'kill')).toEqual([1]);
    expect(
      afterCrash((model) => {
        write(model, 0, 1);
        begin(model, 0, 2);
      }, 'kill'),
    ).toEqual([1, 2]);
  });

  test('but a power cut after the kill may, until the next process flushes', () => {
    const killed = (found: number) => (model: VolumeModel) => {
      write(model, 0, 1);
      begin(model, 0, 2);
      model.crash('kill');
      model.reconcile(volume({ 0: found }), NONE);
      model.check(volume({ 0: found }));
    };
    expect(afterCrash(killed(1))).toEqual([0, 1, 2]);
    expect(
      afterCrash((model) => {
        killed(1)(model);
        flush(model);
      }),
    ).toEqual([1]);
    expect(() => {
      const model = make();
      killed(1)(model);
      model.check(volume({ 0: 2 }));
    }).toThrow(ModelMismatch);
  });

  test('after a failed flush, or one cut off by a kill, the writes it was about may be gone', () => {
    const doomed = (end: (model: VolumeModel, flush: ReturnType<VolumeModel['beginFlush']>) => void) =>
      afterCrash((model) => {
        write(model, 0, 1);
        flush(model);
        write(model, 0, 2);
        end(model, model.beginFlush());
      }, 'kill');
    expect(doomed((model, call) => model.endFlush(call, 'failed'))).toEqual([1, 2]);
    expect(doomed(() => undefined)).toEqual([1, 2]);
    expect(doomed((model, call) => model.endFlush(call))).toEqual([2]);
    // Whatever is found then is as good as anything, once it is flushed.
    const found = afterCrash((model) => {
      write(model, 0, 1);
      model.endFlush(model.beginFlush(), 'failed');
      model.crash('kill');
      model.reconcile(volume(), NONE);
      flush(model);
    });
    expect(found).toEqual([0]);
  });

  test('explains what it found instead', () => {
    const model = make();
    write(model, 0, 1);
    flush(model);
    model.crash('power-cut');
    const bytes = volume({ 0: 0 });
    bytes.set(at(9, 0), 3 * SECTOR);
    bytes.fill(1, 5 * SECTOR, 6 * SECTOR);
    expect(() => model.reconcile(bytes, NONE)).toThrow(
      /sector 0 is too old: .* write 0, allowed: .* write 1\n.*sector 3 is misplaced.*\n.*sector 5 is corrupt/,
    );
  });
});

describe('a read', () => {
  const seen = (history: (model: VolumeModel, read: (sequence: number) => () => void) => void) =>
    accepted([0, 1, 2, 3], (sequence) => {
      const model = make();
      history(model, () => {
        const call = model.beginRead();
        return () => model.endRead(call, 0, at(0, sequence));
      });
    });

  test('sees the last write, or one in flight beside it', () => {
    expect(
      seen((model, read) => {
        write(model, 0, 1);
        write(model, 0, 2);
        const end = read(0);
        end();
      }),
    ).toEqual([2]);
    expect(
      seen((model, read) => {
        write(model, 0, 1);
        const call = begin(model, 0, 2);
        const end = read(0);
        end();
        model.endWrite(call);
      }),
    ).toEqual([1, 2]);
    expect(
      seen((model, read) => {
        const end = read(0);
        write(model, 0, 1);
        write(model, 0, 2);
        flush(model);
        end();
        write(model, 0, 3);
      }),
    ).toEqual([0, 1, 2]);
  });

  test('that failed leaves nothing behind', () => {
    const model = make();
    model.cancelRead(model.beginRead());
    write(model, 0, 1);
    flush(model);
    model.check(volume({ 0: 1 }));
  });
});

describe('a snapshot', () => {
  test('is the volume as it was when nothing was in flight, for ever', () => {
    const model = make();
    write(model, 0, 1);
    snapshot(model, 'a');
    write(model, 0, 2);
    write(model, 1, 2);
    model.checkSnapshot('a', 0, volume({ 0: 1 }));
    model.checkSnapshot('a', SECTOR, at(1, 0));
    expect(() => model.checkSnapshot('a', 0, volume({ 0: 2 }))).toThrow('snapshot a: sector 0 is too new');
    model.crash('power-cut');
    model.reconcile(volume({ 0: 1 }), new Map([['a', volume({ 0: 1 })]]));
    expect(model.snapshotNames).toEqual(['a']);
  });

  /** Which pairs of sectors 0 and 1 a snapshot may have. */
  const pairs = (history: (model: VolumeModel) => void) =>
    accepted(['0,0', '0,1', '1,0', '1,1', '2,0', '2,1', '0,2', '2,2', '1,2'], (pair) => {
      const [first = 0, second = 0] = pair.split(',').map(Number);
      const model = make();
      history(model);
      model.checkSnapshot('a', 0, volume({ 0: first, 1: second }));
      // What was found once stays so.
      model.checkSnapshot('a', 0, volume({ 0: first, 1: second }));
      for (const other of [0, 1, 2]) {
        if (other === first) continue;
        expect(() => model.checkSnapshot('a', 0, at(0, other))).toThrow(ModelMismatch);
      }
    });

  test('has writes in flight with its creation in or out, by sector', () => {
    const both = pairs((model) => {
      const call = begin(model, 0, 1, 2);
      snapshot(model, 'a');
      model.endWrite(call);
    });
    expect(both).toEqual(['0,0', '0,1', '1,0', '1,1']);
  });

  test('has writes that returned before, and none called after', () => {
    const found = pairs((model) => {
      write(model, 0, 1, 2);
      snapshot(model, 'a');
      write(model, 0, 2, 2);
    });
    expect(found).toEqual(['1,1']);
  });

  test('is of one moment: a write that is in brings all that returned before it began', () => {
    const found = pairs((model) => {
      model.beginSnapshot('a');
      write(model, 0, 1);
      write(model, 1, 1);
      model.endSnapshot('a');
    });
    // Sector 1 was written after the write of sector 0 had returned.
    expect(found).toEqual(['0,0', '1,0', '1,1']);
  });

  test('is of one moment also when it is read in pieces', () => {
    const model = make();
    model.beginSnapshot('a');
    write(model, 0, 1);
    write(model, 1, 1);
    model.endSnapshot('a');
    model.checkSnapshot('a', SECTOR, at(1, 1));
    expect(() => model.checkSnapshot('a', 0, at(0, 0))).toThrow('mixes two moments');
  });

  test('of a set is of one moment on all volumes', () => {
    const outcomes = accepted(['0,0', '0,1', '1,0', '1,1'], (pair) => {
      const [first = 0, second = 0] = pair.split(',').map(Number);
      const ticks = new Ticks();
      const models = [make(ticks), make(ticks)] as const;
      const moment = models[0].beginMoment();
      for (const model of models) model.beginSnapshot('a', moment);
      write(models[0], 0, 1);
      write(models[1], 0, 1);
      for (const model of models) model.endSnapshot('a');
      models[0].checkSnapshot('a', 0, volume({ 0: first }));
      models[1].checkSnapshot('a', 0, volume({ 0: second }));
    });
    expect(outcomes).toEqual(['0,0', '1,0', '1,1']);
  });

  test('whose creation was cut off is whole or absent', () => {
    const outcomes = accepted(['absent', 0, 1, 2, 3] as const, (outcome) => {
      const model = make();
      write(model, 0, 1);
      model.beginSnapshot('a');
      begin(model, 0, 2);
      model.crash('power-cut');
      const found = outcome === 'absent' ? NONE : new Map([['a', volume({ 0: outcome })]]);
      // The volume itself may have lost what the snapshot has.
      model.reconcile(volume(), found);
      expect(model.snapshotNames).toEqual([...found.keys()]);
    });
    expect(outcomes).toEqual(['absent', 1, 2]);
  });

  test('is not what was flushed away while it was created', () => {
    const found = pairs((model) => {
      model.beginSnapshot('a');
      write(model, 0, 1);
      flush(model);
      write(model, 0, 2);
      flush(model);
      model.endSnapshot('a');
    });
    expect(found).toEqual(['0,0', '1,0', '2,0']);
  });

  test('that was created and not deleted must be there, any other must not', () => {
    const model = make();
    snapshot(model, 'a');
    model.crash('power-cut');
    expect(() => model.reconcile(volume(), NONE)).toThrow('snapshot a was created and is gone');
    const other = make();
    other.crash('power-cut');
    expect(() => other.reconcile(volume(), new Map([['b', volume()]]))).toThrow('deleted or never created');
  });

  test('whose deletion was cut off is there, right as ever, or gone', () => {
    for (const isThere of [false, true]) {
      const model = make();
      snapshot(model, 'a');
      model.beginDelete('a');
      model.crash('power-cut');
      model.reconcile(volume(), isThere ? new Map([['a', volume()]]) : NONE);
      expect(model.snapshotNames).toEqual(isThere ? ['a'] : []);
    }
    const model = make();
    snapshot(model, 'a');
    model.beginDelete('a');
    model.crash('power-cut');
    expect(() => model.reconcile(volume(), new Map([['a', volume({ 3: 1 })]]))).toThrow('too new');
  });

  test('that was deleted, dropped, or failed, is gone', () => {
    const model = make();
    for (const name of ['deleted', 'dropped', 'kept']) snapshot(model, name);
    model.beginDelete('deleted');
    model.endDelete('deleted');
    model.drop('dropped');
    model.drop('dropped');
    model.beginDelete('kept');
    model.endDelete('kept', 'failed');
    model.beginSnapshot('failed');
    model.endSnapshot('failed', 'failed');
    expect(model.snapshotNames).toEqual(['kept']);
    model.beginSnapshot('uncertain');
    model.endSnapshot('uncertain', 'uncertain');
    model.beginDelete('kept');
    model.endDelete('kept', 'uncertain');
    model.crash('power-cut');
    model.reconcile(volume(), new Map([['uncertain', volume()]]));
    expect(model.snapshotNames).toEqual(['uncertain']);
  });

  test('that may leave out block 1 has it as it was, or as zeros, whole and always the same', () => {
    const blank = new Uint8Array(32 * SECTOR);
    const leftOut = volume();
    leftOut.set(blank, 32 * SECTOR);
    const half = volume();
    half.set(blank.subarray(0, 16 * SECTOR), 32 * SECTOR);
    const other = volume();
    other.set(blank, 0);
    const overwritten = volume({ 40: 1 });
    const looks = [volume(), leftOut, half, other, overwritten];
    const take = () => {
      const model = make();
      model.beginSnapshot('a', undefined, new Set([1]));
      model.endSnapshot('a');
      write(model, 40, 1);
      return model;
    };
    expect(accepted(looks, (look) => take().checkSnapshot('a', 0, look))).toEqual([volume(), leftOut]);
    // One sector settles the others, and every later look.
    for (const first of [volume(), leftOut]) {
      const second = accepted(looks, (look) => {
        const model = take();
        model.checkSnapshot('a', 40 * SECTOR, first.subarray(40 * SECTOR, 41 * SECTOR));
        model.clone().checkSnapshot('a', 0, look);
      });
      expect(second).toEqual([first]);
    }
  });

  test('misuse of the model is an assertion, not a mismatch', () => {
    const model = make();
    expect(() => model.beginWrite(1, at(0, 1))).toThrow('whole sectors');
    expect(() => model.beginWrite(SECTORS * SECTOR, at(0, 1))).toThrow('whole sectors');
    expect(() => model.endSnapshot('a')).toThrow('no snapshot a');
    expect(() => model.reconcileVolume(volume())).toThrow('only a crash');
    snapshot(model, 'a');
    expect(() => model.beginSnapshot('a')).toThrow('already');
    expect(() => new VolumeModel(new Uint8Array(100))).toThrow('whole sectors');
  });
});
