/** Certificates that no client would accept are refused before anybody waits for a client. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { readCertificates } from '../../../src/cli/tls-files.js';

// Made by certtool; their key is nowhere.
const OF_JANUARY_2020 = `-----BEGIN CERTIFICATE-----
MIIBXTCCAQOgAwIBAgIUCrCpspb3ZTCNo7KayKPUKkaFmMswCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAxMDb2xkMB4XDTIwMDEwMTAwMDAwMFoXDTIwMDIwMTAwMDAwMFow
DjEMMAoGA1UEAxMDb2xkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEh5BOCLBA
d0S+eewcHP/OS7PM94FNcO5wfmgqfepblaujRc784vwspEEANBZvlULirjnodr6X
MbIKKo+T6UOgJKM/MD0wDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwHQYD
VR0OBBYEFID/bxDIN8kUnvw5/Z1bAAZ87AhIMAoGCCqGSM49BAMCA0gAMEUCIQDa
BSVPRrWRDNBJ/COgoDCuEUwbZK5ulJbExqw6Iv1sVgIgDbLf+auYth4V9awsFw8V
+FgjMqzZuQhgzkJj1DwqcRw=
-----END CERTIFICATE-----
`;
const FROM_2220_ON = `-----BEGIN CERTIFICATE-----
MIIBYTCCAQegAwIBAgIUOzl+CCVGvYbED5mZPvH4HVRdTOQwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAxMDb2xkMCIYDzIyMjAwMTAxMDAwMDAwWhgPMjIyMDAyMDEwMDAw
MDBaMA4xDDAKBgNVBAMTA29sZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIeQ
TgiwQHdEvnnsHBz/zkuzzPeBTXDucH5oKn3qW5Wro0XO/OL8LKRBADQWb5VC4q45
6Ha+lzGyCiqPk+lDoCSjPzA9MAwGA1UdEwEB/wQCMAAwDgYDVR0PAQH/BAQDAgeA
MB0GA1UdDgQWBBSA/28QyDfJFJ78Of2dWwAGfOwISDAKBggqhkjOPQQDAgNIADBF
AiAGJjr+51pGFbmR9vn5tQXAM9jRKY9XAyFET3pRR895lAIhAN9szIWsTDjwIgwy
r+REoVo3CETl+ahgAVFpEhBlrub1
-----END CERTIFICATE-----
`;
const FROM_2020_TO_2220 = `-----BEGIN CERTIFICATE-----
MIIBXjCCAQWgAwIBAgIUSsxrJEpSIQs19YIqCxkoWClG8XIwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAxMDb2xkMCAXDTIwMDEwMTAwMDAwMFoYDzIyMjAwMjAxMDAwMDAw
WjAOMQwwCgYDVQQDEwNvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASHkE4I
sEB3RL557Bwc/85Ls8z3gU1w7nB+aCp96luVq6NFzvzi/CykQQA0Fm+VQuKuOeh2
vpcxsgoqj5PpQ6Akoz8wPTAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIHgDAd
BgNVHQ4EFgQUgP9vEMg3yRSe/Dn9nVsABnzsCEgwCgYIKoZIzj0EAwIDRwAwRAIg
Y+eR4RNDBeZC4s0h6EEjzkOVNB+/i4r29KvpI/Qm+LcCIEEPJkWYk6o1p11NRQeT
OzivyzfituseMzmFb0D0w6oh
-----END CERTIFICATE-----
`;

function folderWith(ca: string, server: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'volsnap-tls-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'ca-cert.pem'), ca);
  writeFileSync(join(folder, 'server-cert.pem'), server);
  writeFileSync(join(folder, 'server-key.pem'), 'a key');
  return folder;
}

test('a certificate whose time is over, or has not come, is refused by name and date', async () => {
  const expired = readCertificates(folderWith(FROM_2020_TO_2220, OF_JANUARY_2020));
  await expect(expired).rejects.toThrow(/server-cert\.pem was valid until Feb {2}1 00:00:00 2020 GMT/);
  const authority = readCertificates(folderWith(OF_JANUARY_2020, FROM_2020_TO_2220));
  await expect(authority).rejects.toThrow(/ca-cert\.pem was valid until/);
  const early = readCertificates(folderWith(FROM_2020_TO_2220, FROM_2220_ON));
  await expect(early).rejects.toThrow(/server-cert\.pem is not valid before Jan {2}1 00:00:00 2220 GMT/);
});

test('what is valid today, or no certificate at all, is left to whoever uses it', async () => {
  const tls = await readCertificates(folderWith(FROM_2020_TO_2220, 'no PEM'));
  expect(tls).toMatchObject({ kind: 'certificates', cert: 'no PEM' });
});
