/**
 * Takes the place of the package string-width in dist/bin. yargs lays out the help of a command on every run of it, and the package
 * takes 30 ms for that: it looks for emoji in each character. Our help has none, nor any other wide character.
 *
 * CommonJS, because one of its users is.
 *
 * @param {string} text
 */
module.exports = (text) => text.length;
