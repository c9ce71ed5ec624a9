/** The results as a chart: a panel for each image and link, in it a bar for each way, and a line at the limit. */
import type { Limit } from './plan.js';
import { grouped, medianOf, type Summary } from './summary.js';

const PANEL_WIDTH = 460;
const LABEL_WIDTH = 100;
const VALUE_WIDTH = 60;
const ROW_HEIGHT = 20;
const HEAD_HEIGHT = 30;
const PANELS_PER_ROW = 2;
const COLOURS = { ours: '#2563eb', other: '#9ca3af', limit: '#dc2626', pull: '#00000040' };

/** @param titles - Of the links, by name. @returns An SVG document. */
export function chart(
  summaries: readonly Summary[],
  limits: readonly Limit[],
  titles: ReadonlyMap<string, string>,
): string {
  const panels = [...grouped(summaries, ({ image, link }) => `${image}, ${titles.get(link)}`)];
  const body: string[] = [];
  let top = 0;
  for (let i = 0; i < panels.length; i += PANELS_PER_ROW) {
    const row = panels.slice(i, i + PANELS_PER_ROW);
    for (const [column, [title, cells]] of row.entries()) {
      const { image, link } = cells[0]!;
      const limit = limits.find((each) => each.image === image && each.link === link);
      const content = panel(title, cells, limit);
      body.push(`<g transform="translate(${column * PANEL_WIDTH},${top})">${content}</g>`);
    }
    top += HEAD_HEIGHT + ROW_HEIGHT * (1 + Math.max(...row.map(([, cells]) => cells.length)));
  }
  const width = PANEL_WIDTH * Math.min(PANELS_PER_ROW, panels.length);
  const caption = `<text x="4" y="${top + 14}">Seconds from the start of the pull until ready; dark: the pull; red line: the limit.</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top + 24}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
${body.join('\n')}
${caption}
</svg>
`;
}

function panel(title: string, cells: readonly Summary[], limit: Limit | undefined): string {
  const sorted = cells.toSorted((a, b) => a.median.ready - b.median.ready);
  const longest = sorted.at(-1)!.median.ready;
  const scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest;
  const bars = sorted.map(({ way, median }, i) => {
    const y = HEAD_HEIGHT + i * ROW_HEIGHT;
    const colour = way.startsWith('obd') ? COLOURS.ours : COLOURS.other;
    const bar = (seconds: number, fill: string): string =>
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${(seconds * scale).toFixed(1)}" height="${ROW_HEIGHT - 5}" fill="${fill}"/>`;
    const text = y + ROW_HEIGHT - 9;
    const end = LABEL_WIDTH + median.ready * scale + 4;
    return `<text x="${LABEL_WIDTH - 6}" y="${text}" text-anchor="end">${way}</text>${bar(median.ready, colour)}${bar(median.pull, COLOURS.pull)}<text x="${end.toFixed(1)}" y="${text}">${median.ready.toFixed(2)} s</text>`;
  });
  const seconds =
    (limit?.networkSeconds ?? Number.NaN) + medianOf(cells.map(({ median }) => median.warm));
  const x = (LABEL_WIDTH + seconds * scale).toFixed(1);
  const bottom = HEAD_HEIGHT + sorted.length * ROW_HEIGHT;
  const line = Number.isNaN(seconds)
    ? ''
    : `<line x1="${x}" x2="${x}" y1="${HEAD_HEIGHT - 4}" y2="${bottom}" stroke="${COLOURS.limit}"/>`;
  return `<text x="4" y="18" font-weight="bold">${title}</text>${bars.join('')}${line}`;
}
