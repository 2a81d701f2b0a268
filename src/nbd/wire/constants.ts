/**
 * Numbers of the NBD protocol, under the names of its document (doc/proto.md of NetworkBlockDevice/nbd; those of extended
 * headers from its branch `extension-ext-header`). All fields are big-endian.
 */

export const Magic = {
  /** "NBDMAGIC", the first eight bytes of a server, as two words. */
  greetingHigh: 0x4e42444d,
  greetingLow: 0x41474943,
  /** "IHAVEOPT": newstyle; also before every option of a client. */
  optionHigh: 0x49484156,
  optionLow: 0x454f5054,
  /** Before every reply to an option. */
  optionReplyHigh: 0x0003e889,
  optionReplyLow: 0x045565a9,
  request: 0x25609513,
  extendedRequest: 0x21e41c71,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedReply: 0x6e8a278c,
} as const;

/** Handshake flags; those of the client have the same values. */
export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

export const OptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  platform: 0x80000004,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
  shutdown: 0x80000007,
  blockSizeRequired: 0x80000008,
  tooBig: 0x80000009,
  extendedHeadersRequired: 0x8000000a,
} as const;

/** Kinds of information in `NBD_OPT_INFO` and `NBD_OPT_GO`. */
export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** What an export can do. */
export const TransmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
  blockStatusPayload: 1 << 12,
} as const;

export const RequestType = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const RequestFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  df: 1 << 2,
  reqOne: 1 << 3,
  fastZero: 1 << 4,
  payloadLength: 1 << 5,
} as const;

/** The chunk is the last of its reply. */
export const REPLY_DONE = 1;

export const ReplyType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Bit 15 marks every type of error chunk, known or not. */
export const REPLY_TYPE_IS_ERROR = 0x8000;

export const ErrorValue = {
  perm: 1,
  io: 5,
  nomem: 12,
  inval: 22,
  nospc: 28,
  overflow: 75,
  notsup: 95,
  shutdown: 108,
} as const;

/** `base:allocation`: the range is a hole; it reads as zeros. */
export const AllocationStatus = { hole: 1, zero: 2 } as const;

export const BASE_ALLOCATION = 'base:allocation';

/** Longest string that the protocol allows, in bytes. */
export const STRING_MAX = 4096;
/** Most payload of a request or of a chunk where nothing else was agreed, in bytes. */
export const PAYLOAD_MAX = 32 * 1024 * 1024;

/** Sizes of headers, in bytes. */
export const HeaderSize = {
  option: 16,
  optionReply: 20,
  request: 28,
  extendedRequest: 32,
  simpleReply: 16,
  structuredReply: 20,
  extendedReply: 32,
} as const;

/** What both sides agreed on for replies. */
export type ReplyStyle = 'simple' | 'structured' | 'extended';
