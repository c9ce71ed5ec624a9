/** The value of an option that replaces a part of a command line. */
import { ErrorCodes, ObdError } from '../../errors.js';

/**
 * @param text - A JSON array of strings, or one word; undefined if the option is not set.
 * @throws {ObdError} `InvalidArgument` for JSON that is no array of strings.
 */
export function wordsOf(option: string, text: string | undefined): string[] | undefined {
  if (text === undefined || !text.trimStart().startsWith('['))
    return text === undefined ? text : [text];
  try {
    const words: unknown = JSON.parse(text);
    if (Array.isArray(words) && words.every((word) => typeof word === 'string')) return words;
  } catch {
    // As an array of other things.
  }
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use ${option}: ${text} is no JSON array of strings, such as ["python3", "app.py"]`,
  );
}
