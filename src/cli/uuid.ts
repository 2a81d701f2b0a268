/** UUIDs, as people write them. */
import { InvalidArgumentError } from 'commander';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** In lower case, without braces. @throws InvalidArgumentError of commander, which ends as wrong usage */
export function parseUuid(text: string): string {
  const uuid = text.toLowerCase().replace(/^\{(.*)\}$/, '$1');
  if (UUID.test(uuid)) return uuid;
  throw new InvalidArgumentError(
    'Give a UUID, such as 00112233-4455-4677-8899-aabbccddeeff (uuidgen makes one).',
  );
}
