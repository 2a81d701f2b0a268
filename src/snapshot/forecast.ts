/**
 * How fast copies take room, when it will be used up at that rate, and the warnings about both.
 *
 * The rate is an average in which what was a minute ago counts for about a third. Nothing runs by itself: samples are
 * taken when copies are made, and when somebody asks.
 */
import type { Clock } from '../environment.js';
import type { ByteLength } from '../units.js';
import type { Emit } from './events.js';

export interface SpaceForecast {
  /** Bytes of diff areas in use: copies and metadata. */
  readonly usedBytes: ByteLength;
  /** Bytes that further copies may take, by limit, reserve and host; `undefined`: nobody knows a bound. */
  readonly roomBytes: ByteLength | undefined;
  /** How fast copies take room at present. */
  readonly bytesPerSecond: number;
  /** When it will be used up if that goes on; `undefined`: not in the foreseeable future. */
  readonly secondsToFull: number | undefined;
}

/** When to warn. */
export interface SpaceWarning {
  /** Share of the room that is used, from 0 to 1; default 0.8. */
  readonly share?: number;
  /** Time until it will be used up, in seconds; default 900. */
  readonly secondsToFull?: number;
}

export interface SpaceUse {
  readonly usedBytes: ByteLength;
  readonly roomBytes: ByteLength;
  /** All copies since the volume was opened. */
  readonly copiedBytes: ByteLength;
}

const SHARE = 0.8;
const SECONDS_TO_FULL = 900;
/** A warning ends when the share is so much lower, or the time so much longer, than what it was given for. */
const SHARE_BACK = 0.05;
const SECONDS_BACK = 2;
const AVERAGE_MS = 60_000;
const SAMPLE_MS = 1000;
/** Longer than this is no forecast. */
const FORESEEABLE_SECONDS = 10 * 365 * 86_400;

export class SpaceMonitor {
  readonly #clock: Clock;
  readonly #emit: Emit;
  readonly #use: () => SpaceUse;
  readonly #limits: { readonly share: number; readonly forecast: number };
  readonly #warned = { share: false, forecast: false };
  #bytesPerMs = 0;
  #sampledAt: number;
  #copiedBytes = 0;

  constructor(clock: Clock, emit: Emit, warning: SpaceWarning, use: () => SpaceUse) {
    const { share = SHARE, secondsToFull = SECONDS_TO_FULL } = warning;
    this.#clock = clock;
    this.#emit = emit;
    this.#use = use;
    this.#limits = { share, forecast: secondsToFull };
    this.#sampledAt = clock.monotonic();
  }

  get forecast(): SpaceForecast {
    this.#sample();
    const { usedBytes, roomBytes } = this.#use();
    const bytesPerSecond = Math.round(this.#bytesPerMs * 1000);
    const seconds = bytesPerSecond === 0 ? Infinity : roomBytes / bytesPerSecond;
    return {
      usedBytes,
      roomBytes: Number.isFinite(roomBytes) ? roomBytes : undefined,
      bytesPerSecond,
      secondsToFull: seconds < FORESEEABLE_SECONDS ? Math.round(seconds) : undefined,
    };
  }

  /** To be called when copies are made. */
  look(): void {
    if (!this.#sample()) return;
    const forecast = this.forecast;
    const { usedBytes, roomBytes = Infinity, secondsToFull = Infinity } = forecast;
    const share = usedBytes / (usedBytes + roomBytes);
    const { share: most, forecast: least } = this.#limits;
    this.#tell('share', share >= most, share < most - SHARE_BACK, forecast);
    this.#tell('forecast', secondsToFull <= least, secondsToFull > least * SECONDS_BACK, forecast);
  }

  #tell(reason: 'share' | 'forecast', isLow: boolean, isEnough: boolean, forecast: SpaceForecast): void {
    if (this.#warned[reason] ? !isEnough : !isLow) return;
    this.#warned[reason] = isLow;
    this.#emit(isLow ? 'spaceLow' : 'spaceEnough', { ...forecast, reason });
  }

  /** @returns false if the last one was only just now */
  #sample(): boolean {
    const now = this.#clock.monotonic();
    const passed = now - this.#sampledAt;
    if (passed < SAMPLE_MS) return false;
    const { copiedBytes } = this.#use();
    const kept = Math.exp(-passed / AVERAGE_MS);
    this.#bytesPerMs = this.#bytesPerMs * kept + ((copiedBytes - this.#copiedBytes) / passed) * (1 - kept);
    this.#copiedBytes = copiedBytes;
    this.#sampledAt = now;
    return true;
  }
}
