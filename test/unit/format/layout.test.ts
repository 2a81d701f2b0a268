import { expect, test } from 'vitest';
import { describeLayout } from '../../../src/format/layout.ts';

test('no field of the format has moved', () => {
  expect(describeLayout()).toMatchInlineSnapshot(`
    "APPLICATION_INFORMATION_MAX = 16256
    BITS_PER_BITMAP_BLOCK = 130048
    ENTRIES_PER_TABLE_BLOCK = 508
    ENTRY_SIZE = 32
    FORMAT_SIGNATURE = 3808876b-c176-4e48-b7ae-04046e6cc752
    FORMAT_VERSION = 1
    HEADER_SIZE = 128
    ITEMS_PER_BLOCK = 127
    ITEM_SIZE = 128
    LOCATIONS_PER_BLOCK = 677
    LOCATION_SIZE = 24
    PAYLOAD_SIZE = 16256
    SNAPSHOTS_MAX = 512
    START_BLOCK_OFFSET = 7680
    START_BLOCK_SIZE = 512
    block types: 1 start, 2 control, 3 table, 4 applicationInformation, 5 location, 6 bitmap
    block header: ends at 128
        0  16 signature
       16   4 version
       20   4 type
       24   8 fileOffset
       32   8 volumeOffset
       40   8 nextOffset
       48   8 informationSize
       56  72 extension
    header extension: ends at 128
       56   4 magic
       60   4 incompatible
       64   4 readOnlyCompatible
       68   4 compatible
       72   8 epoch
       80   8 watermark
       88   4 checksum
       92   4 volumeFlags
       96   4 entriesChecksum
      100  28 reserved
    start block: ends at 512
        0  16 signature
       16   4 version
       20   4 type
       24   8 fileOffset
       32   8 volumeOffset
       40   8 nextOffset
       48   8 firstControlBlock
       56   8 maximumSize
       64  16 volumeId
       80  16 storageVolumeId
       96   4 magic
      100   4 incompatible
      104   4 readOnlyCompatible
      108   4 compatible
      112   8 protectedSize
      120   4 layout
      124   4 flags
      128   8 storeId
      136   8 cleanVolumeSize
      144   8 cleanModifiedAt
      152   4 checksum
      156   4 spacePolicy
      160   4 spaceAfterWait
      164   4 spaceWaitMs
      168 204 reserved
      372   8 growingTo
      380   4 setRecordCount
      384 128 setRecords
    snapshot item: ends at 128
        0   4 type
        4   4 typeReserved
        8   8 volumeSize
       16  16 storeId
       32   8 order
       40   8 flags
       48   8 createdAt
       56  72 reserved
    diff-area item: ends at 128
        0   4 type
        4   4 typeReserved
        8   8 tableOffset
       16  16 storeId
       32   8 applicationInformationOffset
       40   8 locationOffset
       48   8 bitmapOffset
       56   8 fileReference
       64   8 allocatedSize
       72   8 previousBitmapOffset
       80   8 unknown
       88   4 pairChecksum
       92   4 state
       96   8 heldUntil
      104   8 elderOrder
      112  16 reserved
    table entry: ends at 32
        0   8 originalOffset
        8   8 relativeOffset
       16   8 volumeOffset
       24   4 flags
       28   4 bitmap
    location: ends at 24
        0   8 volumeOffset
        8   8 fileOffset
       16   8 length
    application information: ends at 64
        0  16 unknownId
       16  16 snapshotId
       32  16 setId
       48   4 context
       52   4 provider
       56   4 attributes
       60   4 reserved
    information section: ends at 8
        0   4 magic
        4   4 length
    set section: ends at 36
        0  16 volumeId
       16  16 recordId
       32   4 volumeLength"
  `);
});
