/** The option of the commands that take an image, which may be an index of images. */
export const platformOption = {
  type: 'string',
  requiresArg: true,
  describe: "os/architecture[/variant] of the image; this host's by default",
} as const;
