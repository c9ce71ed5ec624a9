/**
 * The authorities that may sign a registry's certificate: Node's own, this system's (including a company's own,
 * installed by its administrator), and those of NODE_EXTRA_CA_CERTS. SSL_CERT_FILE replaces the system's file, as it
 * does for OpenSSL and for Go's tools.
 *
 * Read once per client and set of extra authorities, at the first TLS connection: some 300 certificates take about 20
 * ms to parse.
 */
import { readFileSync } from 'node:fs';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';
import { pemCertificates } from './pem-certificates.js';

const SYSTEM_BUNDLE = '/etc/ssl/certs/ca-certificates.crt';

/**
 * @param extra - More certificates, in PEM.
 * @throws {ObdError} `Host` if a configured file cannot be read or holds no certificates.
 */
export function trustedRoots(extra: readonly string[]): SecureContext {
  const named = [process.env['SSL_CERT_FILE'], process.env['NODE_EXTRA_CA_CERTS']];
  const bundles = named.map((path) => (path === undefined || path === '' ? '' : readBundle(path)));
  if (bundles[0] === '') bundles[0] = readSystemBundle();
  try {
    return createSecureContext({
      ca: [...rootCertificates, ...bundles.filter((text) => text !== ''), ...extra],
      minVersion: 'TLSv1.2',
    });
  } catch (error) {
    const files = named.filter((path) => path !== undefined).join(', ') || SYSTEM_BUNDLE;
    throw unreadable(files, error);
  }
}

function readBundle(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw unreadable(path, error);
  }
  if (pemCertificates(text).length > 0) return text;
  throw unreadable(path, new Error('it has no certificate in PEM in it'));
}

function readSystemBundle(): string {
  try {
    return readFileSync(SYSTEM_BUNDLE, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return '';
    throw unreadable(SYSTEM_BUNDLE, error);
  }
}

function unreadable(path: string, error: unknown): ObdError {
  const message = `Cannot read the trusted certificates of ${path}: ${messageOf(error)}`;
  return new ObdError(ErrorCodes.Host, message, { path }, error);
}
