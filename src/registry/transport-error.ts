/**
 * Maps the error codes of Node, OpenSSL and undici to errors about a registry; no other file uses these codes.
 *
 * Most codes, and every unknown one, become `Unavailable`, which retrying() retries. Permanent problems (certificates,
 * no TLS at the other end) become `Registry`, with the remedy.
 */
import { type ErrorCode, ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';
import { quotable } from './quotable.js';

const TRUST_REMEDY =
  'if the authority is its own, put its certificate into /etc/ssl/certs or name it as "ca" in its hosts.toml';
const PLAIN_REMEDY =
  'if it speaks plain HTTP, say so in plain_http, in its hosts.toml, or with --plain-http';
const UNTRUSTED = `its certificate is not signed by an authority known here; ${TRUST_REMEDY}`;

const { Unavailable, Registry } = ErrorCodes;

const MEANING: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  ECONNREFUSED: [Unavailable, 'it refuses connections; is it running?'],
  ECONNRESET: [Unavailable, 'it reset the connection'],
  ECONNABORTED: [Unavailable, 'the connection was aborted'],
  EPIPE: [Unavailable, 'it closed the connection while being written to'],
  ETIMEDOUT: [Unavailable, 'the connection timed out'],
  EHOSTUNREACH: [Unavailable, 'there is no route to it'],
  EHOSTDOWN: [Unavailable, 'it is down'],
  ENETUNREACH: [Unavailable, 'its network cannot be reached'],
  ENETDOWN: [Unavailable, 'the network is down'],
  EADDRNOTAVAIL: [Unavailable, 'no local address or port is left to connect from'],
  EMFILE: [Unavailable, 'this process has too many files open to connect'],
  ENOTFOUND: [Unavailable, 'its name does not resolve'],
  EAI_AGAIN: [Unavailable, 'the name server does not answer'],
  UND_ERR_CONNECT_TIMEOUT: [Unavailable, 'connecting took too long'],
  UND_ERR_HEADERS_TIMEOUT: [Unavailable, 'it took too long to answer'],
  UND_ERR_BODY_TIMEOUT: [Unavailable, 'it stalled in the middle of its answer'],
  UND_ERR_SOCKET: [Unavailable, 'it closed the connection'],
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: [Unavailable, 'its answer has another length than it said'],
  UND_ERR_HEADERS_OVERFLOW: [Registry, 'the headers of its answer are too large'],
  UND_ERR_DESTROYED: [ErrorCodes.FailedPrecondition, 'this client is closed'],
  UND_ERR_CLOSED: [ErrorCodes.FailedPrecondition, 'this client is closed'],
  EPROTO: [Registry, `TLS failed; ${PLAIN_REMEDY}`],
  ERR_SSL_WRONG_VERSION_NUMBER: [Registry, `it does not speak TLS; ${PLAIN_REMEDY}`],
  ERR_SSL_PACKET_LENGTH_TOO_LONG: [Registry, `it does not speak TLS; ${PLAIN_REMEDY}`],
  SELF_SIGNED_CERT_IN_CHAIN: [Registry, UNTRUSTED],
  DEPTH_ZERO_SELF_SIGNED_CERT: [Registry, `its certificate signs itself; ${TRUST_REMEDY}`],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: [Registry, UNTRUSTED],
  UNABLE_TO_GET_ISSUER_CERT: [Registry, UNTRUSTED],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: [Registry, UNTRUSTED],
  CERT_HAS_EXPIRED: [Registry, "its certificate has expired; renew it, or set this host's clock"],
  CERT_NOT_YET_VALID: [Registry, "its certificate is not valid yet; check this host's clock"],
  ERR_TLS_CERT_ALTNAME_INVALID: [Registry, 'its certificate is for another name'],
};

/**
 * Returns the ObdError for an error of a request, or `error` itself if it is one already.
 *
 * @param doing - The operation, for the message: "Cannot read sha256:... ".
 * @param host - The host that was asked. Never a whole URL: queries of signed ones are secrets.
 */
export function transportError(error: unknown, doing: string, host: string): ObdError {
  if (error instanceof ObdError) return error;
  const code = systemCode(error) ?? '';
  const [errorCode, problem] = isUnaskedContinue(error, code)
    ? [Unavailable, 'it sent "100 Continue", which no request asks for']
    : (MEANING[code] ?? familyMeaning(code, error));
  return new ObdError(errorCode, `${doing}: ${host}: ${problem}`, {}, error);
}

/** undici closes the connection at any 100; only its message identifies this error. */
function isUnaskedContinue(error: unknown, code: string): boolean {
  return code === 'UND_ERR_SOCKET' && messageOf(error) === 'bad response';
}

/** By families of codes (llhttp's, and OpenSSL's reasons for a failed handshake), or by the error's name. */
function familyMeaning(code: string, error: unknown): readonly [ErrorCode, string] {
  const name = error instanceof Error ? error.name : '';
  // undici gives its parser's errors no code of llhttp's.
  if (name === 'HTTPParserError' || code.startsWith('HPE_')) {
    return [Unavailable, `its answer is not HTTP (${quotable(messageOf(error))})`];
  }
  if (name === 'TimeoutError') return [Unavailable, 'it took too long to answer'];
  if (code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')) {
    return [Registry, `TLS failed (${code})`];
  }
  return [
    Unavailable,
    code === '' ? `the request failed (${name})` : `the request failed (${code})`,
  ];
}
