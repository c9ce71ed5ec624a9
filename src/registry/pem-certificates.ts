/** The certificates of a PEM file. As in Go, text around them and those that cannot be read are left out. */
import { X509Certificate } from 'node:crypto';

const BLOCK =
  /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g;

/** @returns Each in PEM; none for DER, keys, or a page of HTML. */
export function pemCertificates(text: string): string[] {
  return (text.match(BLOCK) ?? []).filter((block) => {
    try {
      return new X509Certificate(block).raw.length > 0;
    } catch {
      return false;
    }
  });
}
