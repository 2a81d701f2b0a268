/**
 * Application information: what the creator of a snapshot says about it, in one block of at most 16,256 bytes.
 *
 * It opens as VSS writes it (identifiers, attributes, two machine names), so that other readers show set and snapshot.
 * Behind that follow sections of ours, each u32 magic, u32 length, bytes. A reader skips a section that it does not
 * know; in a foreign block it stops at the first one, because whatever lies there was not written as sections.
 */
import { assert, FormatError, InvalidArgumentError, LimitError } from '../errors.js';
import { BLOCK_SIZE } from '../units.js';
import { badField, hex, isZero, type ReadContext, viewOf } from './binary.js';
import { type BlockHeader, decodeHeader, encodeHeader, headerOf, type NewBlock } from './block-header.js';
import { APPLICATION_INFORMATION_MAX, BlockType, HEADER_SIZE } from './constants.js';
import { sealBlock } from './extension.js';
import { decodeGuid, encodeGuid, GUID_SIZE, type Guid, NIL_GUID } from './guid.js';
import { structure } from './structure.js';

/** Where the commit record of a set of snapshots is: the snapshot of one of its volumes. */
export interface SetCoordinator {
  /** The volume's GUID, from its start block. */
  readonly volumeId: Guid;
  /** Store GUID of that snapshot. */
  readonly recordId: Guid;
  /** Path or URI of the volume. */
  readonly volume: string;
  /** Path of its store; empty: inside the volume. */
  readonly store: string;
}

export interface ApplicationInformation {
  /** First field, meaning unknown; Windows 7 stores the same GUID in every snapshot. */
  readonly unknownId: Guid;
  readonly snapshotId: Guid;
  readonly setId: Guid;
  readonly context: number;
  readonly provider: number;
  readonly attributes: number;
  readonly originatingMachine: string;
  readonly serviceMachine: string;
  readonly label: string | undefined;
  /** What a backup agent stored with the snapshot; its bytes mean nothing here. */
  readonly agentBytes: Uint8Array | undefined;
  /** In every member of a set of several, the coordinator's own too. */
  readonly coordinator?: SetCoordinator | undefined;
}

const FIXED_SIZE = 64;
const SECTION_HEADER_SIZE = 8;
/** "VSlb", "VSai" and "VSst" as they lie on disk. */
const LABEL_MAGIC = 0x62_6c_53_56;
const AGENT_MAGIC = 0x69_61_53_56;
const SET_MAGIC = 0x74_73_53_56;
const KNOWN_MAGICS: readonly number[] = [LABEL_MAGIC, AGENT_MAGIC, SET_MAGIC];

// 0 GUID unknown | 16 GUID snapshot | 32 GUID set | 48 u32 context | 52 u32 provider | 56 u32 attributes | 60 u32 zero
// then twice: u16 length in bytes, UTF-16LE text; then sections: u32 magic, u32 length in bytes, bytes
export const INFORMATION = structure('application information', FIXED_SIZE, {
  unknownId: GUID_SIZE,
  snapshotId: GUID_SIZE,
  setId: GUID_SIZE,
  context: 4,
  provider: 4,
  attributes: 4,
  reserved: 4,
});
export const SECTION = structure('information section', SECTION_HEADER_SIZE, { magic: 4, length: 4 });
// 0 GUID volume | 16 GUID record | 32 u32 length of the volume's name in bytes | then UTF-8: that name, and the store's
export const COORDINATOR = structure('set section', 36, {
  volumeId: GUID_SIZE,
  recordId: GUID_SIZE,
  volumeLength: 4,
});
const at = INFORMATION.at;

/** Information with everything empty but the two identifiers. */
export const informationOf = (snapshotId: Guid, setId: Guid): ApplicationInformation => ({
  unknownId: NIL_GUID,
  snapshotId,
  setId,
  context: 0,
  provider: 0,
  attributes: 0,
  originatingMachine: '',
  serviceMachine: '',
  label: undefined,
  agentBytes: undefined,
});

/**
 * The payload for `information`, exactly as long as needed.
 * @throws LimitError when it does not fit a block; InvalidArgumentError for a label that is no well-formed text
 */
export function encodeApplicationInformation(information: ApplicationInformation): Uint8Array {
  const sections: [magic: number, bytes: Uint8Array][] = [];
  if (information.label !== undefined) sections.push([LABEL_MAGIC, utf8Of(information.label)]);
  if (information.agentBytes !== undefined) sections.push([AGENT_MAGIC, information.agentBytes]);
  if (information.coordinator !== undefined)
    sections.push([SET_MAGIC, encodeCoordinator(information.coordinator)]);
  const names = [information.originatingMachine, information.serviceMachine];
  const size =
    FIXED_SIZE +
    names.reduce((sum, name) => sum + 2 + name.length * 2, 0) +
    sections.reduce((sum, [, bytes]) => sum + SECTION_HEADER_SIZE + bytes.byteLength, 0);
  if (size > APPLICATION_INFORMATION_MAX)
    throw new LimitError(
      `application information takes ${size} bytes, must be at most ${APPLICATION_INFORMATION_MAX}; shorten the label or the agent's bytes by ${size - APPLICATION_INFORMATION_MAX}`,
    );
  const payload = new Uint8Array(size);
  const view = viewOf(payload);
  encodeGuid(payload, at.unknownId, information.unknownId);
  encodeGuid(payload, at.snapshotId, information.snapshotId);
  encodeGuid(payload, at.setId, information.setId);
  view.setUint32(at.context, information.context, true);
  view.setUint32(at.provider, information.provider, true);
  view.setUint32(at.attributes, information.attributes, true);
  let end = FIXED_SIZE;
  for (const name of names) {
    view.setUint16(end, name.length * 2, true);
    end += 2;
    for (let i = 0; i < name.length; i++, end += 2) view.setUint16(end, name.charCodeAt(i), true);
  }
  for (const [magic, bytes] of sections) {
    view.setUint32(end + SECTION.at.magic, magic, true);
    view.setUint32(end + SECTION.at.length, bytes.byteLength, true);
    payload.set(bytes, end + SECTION_HEADER_SIZE);
    end += SECTION_HEADER_SIZE + bytes.byteLength;
  }
  assert(end === size, () => `wrote ${end} of ${size} bytes of application information`);
  return payload;
}

/**
 * The information in `payload`.
 * @throws FormatError for a text or section that does not fit the payload
 */
export function decodeApplicationInformation(
  payload: Uint8Array,
  context: ReadContext,
): ApplicationInformation {
  if (payload.byteLength < FIXED_SIZE)
    throw badField(
      context,
      'application information length',
      payload.byteLength,
      `at least ${FIXED_SIZE} bytes`,
    );
  const view = viewOf(payload);
  const originating = decodeName(view, FIXED_SIZE, 'originating machine', context);
  const service = decodeName(view, originating.end, 'service machine', context);
  const sections = decodeSections(payload, service.end, context);
  const label = sections.get(LABEL_MAGIC);
  const agentBytes = sections.get(AGENT_MAGIC);
  const coordinator = sections.get(SET_MAGIC);
  return {
    unknownId: decodeGuid(payload, at.unknownId),
    snapshotId: decodeGuid(payload, at.snapshotId),
    setId: decodeGuid(payload, at.setId),
    context: view.getUint32(at.context, true),
    provider: view.getUint32(at.provider, true),
    attributes: view.getUint32(at.attributes, true),
    originatingMachine: originating.text,
    serviceMachine: service.text,
    label: label === undefined ? undefined : textOf(label, context),
    agentBytes: agentBytes?.slice(),
    ...(coordinator === undefined ? {} : { coordinator: decodeCoordinator(coordinator, context) }),
  };
}

function encodeCoordinator({ volumeId, recordId, volume, store }: SetCoordinator): Uint8Array {
  const volumeBytes = new TextEncoder().encode(volume);
  const storeBytes = new TextEncoder().encode(store);
  const fixed = COORDINATOR.size;
  const bytes = new Uint8Array(fixed + volumeBytes.byteLength + storeBytes.byteLength);
  encodeGuid(bytes, COORDINATOR.at.volumeId, volumeId);
  encodeGuid(bytes, COORDINATOR.at.recordId, recordId);
  viewOf(bytes).setUint32(COORDINATOR.at.volumeLength, volumeBytes.byteLength, true);
  bytes.set(volumeBytes, fixed);
  bytes.set(storeBytes, fixed + volumeBytes.byteLength);
  return bytes;
}

function decodeCoordinator(bytes: Uint8Array, context: ReadContext): SetCoordinator {
  const fixed = COORDINATOR.size;
  if (bytes.byteLength < fixed)
    throw badField(context, 'set section: length', bytes.byteLength, `at least ${fixed}`);
  const volumeLength = viewOf(bytes).getUint32(COORDINATOR.at.volumeLength, true);
  if (fixed + volumeLength > bytes.byteLength)
    throw badField(context, 'set section: length of the volume name', volumeLength, 'within the section');
  return {
    volumeId: decodeGuid(bytes, COORDINATOR.at.volumeId),
    recordId: decodeGuid(bytes, COORDINATOR.at.recordId),
    volume: textOf(bytes.subarray(fixed, fixed + volumeLength), context, 'name of a volume'),
    store: textOf(bytes.subarray(fixed + volumeLength), context, 'name of a store'),
  };
}

function decodeName(
  view: DataView,
  from: number,
  field: string,
  context: ReadContext,
): { text: string; end: number } {
  const start = from + 2;
  // A foreign payload may end with the fixed fields.
  if (start > view.byteLength) {
    if (context.foreign === true) return { text: '', end: view.byteLength };
    throw badField(context, `${field}: end`, start, `within the ${view.byteLength} bytes of information`);
  }
  const size = view.getUint16(from, true);
  const end = start + size;
  if (size % 2 !== 0) throw badField(context, `${field}: length`, size, 'even (UTF-16)');
  if (end > view.byteLength)
    throw badField(context, `${field}: length`, size, `within the ${view.byteLength} bytes of information`);
  let text = '';
  // Unit by unit, so that a name that is no well-formed UTF-16 survives as it is.
  for (let i = start; i < end; i += 2) text += String.fromCharCode(view.getUint16(i, true));
  return { text, end };
}

function decodeSections(payload: Uint8Array, from: number, context: ReadContext): Map<number, Uint8Array> {
  const sections = new Map<number, Uint8Array>();
  const view = viewOf(payload);
  let place = from;
  while (!isZero(payload, place)) {
    const start = place + SECTION_HEADER_SIZE;
    const magic = start > payload.byteLength ? 0 : view.getUint32(place + SECTION.at.magic, true);
    const known = KNOWN_MAGICS.includes(magic);
    if (!known && context.foreign === true) break;
    if (start > payload.byteLength)
      throw badField(context, 'information section: end', start, `within ${payload.byteLength} bytes`);
    const length = view.getUint32(place + SECTION.at.length, true);
    if (start + length > payload.byteLength)
      throw badField(
        context,
        `information section ${hex(magic)}: length`,
        length,
        `within ${payload.byteLength} bytes`,
      );
    if (sections.has(magic)) throw badField(context, 'information section', magic, 'there only once');
    sections.set(magic, payload.subarray(start, start + length));
    place = start + length;
  }
  return sections;
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function textOf(bytes: Uint8Array, context: ReadContext, what = 'snapshot label'): string {
  try {
    return UTF8.decode(bytes);
  } catch (cause) {
    throw new FormatError(`block at offset ${hex(context.offset)}: ${what} is no UTF-8 text`, { cause });
  }
}

function utf8Of(label: string): Uint8Array {
  if (/\p{Surrogate}/u.test(label))
    throw new InvalidArgumentError('label holds half of a surrogate pair, must be well-formed text');
  return new TextEncoder().encode(label);
}

/** The whole block, sealed. @throws as the payload's encoder */
export function encodeApplicationInformationBlock(
  place: NewBlock,
  information: ApplicationInformation,
): Uint8Array {
  const payload = encodeApplicationInformation(information);
  const block = new Uint8Array(BLOCK_SIZE);
  encodeHeader(block, {
    ...headerOf(BlockType.applicationInformation, place),
    informationSize: payload.byteLength,
  });
  block.set(payload, HEADER_SIZE);
  sealBlock(block);
  return block;
}

/**
 * Header and information of a whole block. The information size that a foreign block states is not relied on.
 * @throws as `decodeHeader` and the payload's decoder; FormatError (ours) for bytes after the stated size
 */
export function decodeApplicationInformationBlock(
  block: Uint8Array,
  context: ReadContext,
): { header: BlockHeader; information: ApplicationInformation } {
  const header = decodeHeader(block, BlockType.applicationInformation, context);
  const foreign = header.extension === undefined;
  const end = foreign ? BLOCK_SIZE : HEADER_SIZE + header.informationSize;
  if (!isZero(block, end))
    throw badField(context, 'information after its size', header.informationSize, 'zero');
  const information = decodeApplicationInformation(block.subarray(HEADER_SIZE, end), {
    offset: context.offset,
    foreign,
  });
  return { header, information };
}
