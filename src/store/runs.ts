/**
 * The runs of one diff-area file: which ranges of the device that holds it make up the file.
 *
 * This is the one notion that the two layouts share. A file of a directory store is one run whose offsets are equal on
 * both sides; a file inside a volume is any number of runs. On disk runs are the entries of a location list.
 */
import { assert, FormatError } from '../errors.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';

/** `length` bytes from `fileOffset` of the file lie at `volumeOffset` of the device. All multiples of 16 KiB. */
export interface Run {
  readonly volumeOffset: ByteOffset;
  readonly fileOffset: ByteOffset;
  readonly length: ByteLength;
}

/** A range of the device that holds `length` consecutive bytes of the file. */
export interface Piece {
  readonly volumeOffset: ByteOffset;
  readonly length: ByteLength;
}

export class Runs {
  #runs: readonly Run[];

  constructor(runs: readonly Run[]) {
    this.#runs = merged(runs);
  }

  /** Size of the file in bytes. */
  get size(): ByteLength {
    const last = this.#runs.at(-1);
    return last === undefined ? 0 : last.fileOffset + last.length;
  }

  /** The runs, in file order, neighbours merged. */
  get list(): readonly Run[] {
    return this.#runs;
  }

  append(pieces: readonly Piece[]): void {
    const added: Run[] = [];
    let fileOffset = this.size;
    for (const { volumeOffset, length } of pieces) {
      added.push({ volumeOffset, fileOffset, length });
      fileOffset += length;
    }
    this.#runs = merged([...this.#runs, ...added]);
  }

  /** Cuts the file off at `size` bytes; returns what it no longer occupies. */
  truncate(size: ByteLength): Piece[] {
    const cut: Piece[] = [];
    const kept: Run[] = [];
    for (const run of this.#runs) {
      const keep = Math.max(0, Math.min(run.length, size - run.fileOffset));
      if (keep > 0) kept.push({ ...run, length: keep });
      if (keep < run.length) cut.push({ volumeOffset: run.volumeOffset + keep, length: run.length - keep });
    }
    this.#runs = kept;
    return cut;
  }

  /** Device offset of the byte at `fileOffset`. */
  locate(fileOffset: ByteOffset): ByteOffset {
    const run = this.runAt(fileOffset);
    return run.volumeOffset + (fileOffset - run.fileOffset);
  }

  /** The same, if `length` bytes of the file from there lie together on the device. */
  locateWhole(fileOffset: ByteOffset, length: ByteLength): ByteOffset | undefined {
    const run = this.runAt(fileOffset);
    const inside = fileOffset - run.fileOffset;
    return inside + length <= run.length ? run.volumeOffset + inside : undefined;
  }

  /** Device ranges that hold `length` bytes of the file from `fileOffset`, in order. */
  pieces(fileOffset: ByteOffset, length: ByteLength): Piece[] {
    const pieces: Piece[] = [];
    for (let at = fileOffset; at < fileOffset + length; ) {
      const run = this.runAt(at);
      const inside = at - run.fileOffset;
      const pieceLength = Math.min(run.length - inside, fileOffset + length - at);
      pieces.push({ volumeOffset: run.volumeOffset + inside, length: pieceLength });
      at += pieceLength;
    }
    return pieces;
  }

  /** The run that holds the byte at `fileOffset`. */
  runAt(fileOffset: ByteOffset): Run {
    let low = 0;
    let high = this.#runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const run = this.#runs[middle];
      if (run !== undefined && run.fileOffset + run.length <= fileOffset) low = middle + 1;
      else high = middle;
    }
    const run = this.#runs[low];
    assert(
      run !== undefined && fileOffset >= 0,
      () => `offset ${fileOffset} of a diff-area file of ${this.size} bytes`,
    );
    return run;
  }
}

function merged(runs: readonly Run[]): Run[] {
  const list: Run[] = [];
  for (const run of runs) {
    const last = list.at(-1);
    if (last !== undefined && last.volumeOffset + last.length === run.volumeOffset) {
      list[list.length - 1] = { ...last, length: last.length + run.length };
    } else {
      list.push(run);
    }
  }
  return list;
}

/**
 * Checks the runs read from a location list: whole blocks, the file covered from 0 without a gap, within the device,
 * no part of the device twice.
 * @throws FormatError naming the run.
 */
export function checkRuns(runs: readonly Run[], deviceSize: ByteLength): void {
  let fileOffset = 0;
  for (const run of runs) {
    const { volumeOffset, length } = run;
    const text = `run of ${length} bytes at volume offset ${volumeOffset}, file offset ${run.fileOffset}`;
    if (volumeOffset % BLOCK_SIZE !== 0 || length % BLOCK_SIZE !== 0 || length === 0) {
      throw new FormatError(`location list: ${text} is not made of whole 16 KiB blocks`);
    }
    if (run.fileOffset !== fileOffset)
      throw new FormatError(`location list: ${text}, expected file offset ${fileOffset}`);
    if (volumeOffset + length > deviceSize)
      throw new FormatError(`location list: ${text} ends past ${deviceSize}`);
    fileOffset += length;
  }
  const byVolume = [...runs].sort((a, b) => a.volumeOffset - b.volumeOffset);
  for (let i = 1; i < byVolume.length; i++) {
    const before = byVolume[i - 1];
    const after = byVolume[i];
    if (
      before !== undefined &&
      after !== undefined &&
      before.volumeOffset + before.length > after.volumeOffset
    ) {
      throw new FormatError(`location list: two runs overlap at volume offset ${after.volumeOffset}`);
    }
  }
}
