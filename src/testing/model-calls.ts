/** How calls to the engine are reported to the oracle. */

/** A call that has begun: to be handed back when it ends. */
export interface PendingCall {
  readonly start: number;
}

/** How a call ended. An error after which the effect is not known, as for a failed commit, is `uncertain`. */
export type CallResult = 'done' | 'failed' | 'uncertain';
