/**
 * Which file system (or other structure) begins on a device, by its magic bytes, and whether it leaves alone the
 * sector at 0x1E00, where an in-volume store puts its start block.
 *
 * Sources: the file systems' own format descriptions (kernel.org ext4, XFS and btrfs pages; Microsoft's published FAT and
 * exFAT specifications; UEFI specification, GPT; LUKS on-disk format; LVM2 label).
 */

/** How many bytes from the start of the device `identify` wants to see. */
export const SIGNATURE_BYTES = 68 * 1024;

export interface FileSystemKind {
  readonly name: string;
  /** Why the start block cannot live on such a volume; `undefined`: it can. */
  readonly startBlockConflict?: string;
}

interface Signature extends FileSystemKind {
  readonly offset: number;
  readonly magic: string;
}

// Order matters: FAT and NTFS share the boot signature that an MBR also has.
const SIGNATURES: readonly Signature[] = [
  { name: 'NTFS', offset: 3, magic: 'NTFS    ' },
  {
    name: 'exFAT',
    offset: 3,
    magic: 'EXFAT   ',
    startBlockConflict: 'it keeps its backup boot region there',
  },
  {
    name: 'ReFS',
    offset: 3,
    magic: 'ReFS\0\0\0\0',
    startBlockConflict: 'it is not known to leave that sector free',
  },
  { name: 'FAT32', offset: 82, magic: 'FAT32   ' },
  { name: 'FAT', offset: 54, magic: 'FAT', startBlockConflict: 'its allocation table lies there' },
  {
    name: 'XFS',
    offset: 0,
    magic: 'XFSB',
    startBlockConflict: 'its first allocation group has its trees there',
  },
  { name: 'LUKS', offset: 0, magic: 'LUKS\xba\xbe', startBlockConflict: 'its header lies there' },
  { name: 'GPT', offset: 512, magic: 'EFI PART', startBlockConflict: 'its partition entries lie there' },
  { name: 'LVM', offset: 512, magic: 'LABELONE', startBlockConflict: 'its metadata area lies there' },
  {
    name: 'ext2/3/4',
    offset: 1080,
    magic: '\x53\xef',
    startBlockConflict: 'it keeps its group descriptors or data there',
  },
  { name: 'swap', offset: 4086, magic: 'SWAPSPACE2', startBlockConflict: 'swapped pages lie there' },
  { name: 'btrfs', offset: 65_600, magic: '_BHRfS_M' },
];

/** @param bytes the first `SIGNATURE_BYTES` of the device, or all of it if it is smaller */
export function identify(bytes: Uint8Array): FileSystemKind | undefined {
  return SIGNATURES.find(({ offset, magic }) => {
    if (offset + magic.length > bytes.length) return false;
    for (let i = 0; i < magic.length; i++) if (bytes[offset + i] !== magic.charCodeAt(i)) return false;
    return true;
  });
}
