/** Options that replace parts of the command line with which an image starts. */
export const startOptions = {
  entrypoint: {
    type: 'string',
    requiresArg: true,
    describe: "Instead of the image's Entrypoint and Cmd: a JSON array, or one word",
  },
  args: {
    type: 'string',
    requiresArg: true,
    describe: "Instead of the image's Cmd: a JSON array, or one word",
  },
  env: {
    type: 'string',
    array: true,
    // Else it would take the image, too.
    nargs: 1,
    default: [] as string[],
    describe: 'NAME=VALUE, added to the environment of the image; may be repeated',
  },
  cwd: {
    type: 'string',
    requiresArg: true,
    describe: "Instead of the image's WorkingDir",
  },
} as const;
