/** `obdctl layer inspect`: prints a report of each layer file. */
import { byteText } from '../../byte-text.js';
import { LAYER_FORMATS } from '../../layers/layer-formats.js';
import { type LayerReport, reportLayer } from '../../layers/layer-report.js';
import { DecodedBlocks } from '../../zfile/decoded-blocks.js';
import { printJson } from './json-option.js';
import { checkTargets, DECODED_BYTES } from './layer-targets.js';

/** @param targets - One for each layer, or none. */
export async function inspectLayers(
  layers: readonly string[],
  targets: readonly string[],
  json: boolean,
): Promise<void> {
  checkTargets(layers, targets);
  const dependencies = { formats: LAYER_FORMATS, decoded: new DecodedBlocks(DECODED_BYTES) };
  const reports: LayerReport[] = [];
  for (const [i, name] of layers.entries()) {
    reports.push(await reportLayer(name, targets[i], dependencies));
  }
  if (json) printJson(reports);
  else process.stdout.write(reports.map(textOf).join('\n'));
}

function textOf(report: LayerReport): string {
  const { compression } = report;
  const rows = [
    ['form', `${report.form}${report.tar ? ', in a tar' : ''}`],
    ['file size', byteText(report.fileBytes)],
    ['compression', compression === null ? 'none' : compressionText(compression, report.fileBytes)],
    [
      'hash tree',
      report.hashTree === null
        ? 'none'
        : `${report.hashTree.root}, by its header; its blocks are checked when they are read`,
    ],
    ['uuid', report.uuid],
    ['parent uuid', report.parentUuid],
    ['virtual size', byteText(report.virtualBytes)],
    ['data', `${byteText(report.dataBytes)} in ${report.segments} segments`],
    ['zeroed', byteText(report.zeroedBytes)],
    ...(report.userTag === '' ? [] : [['user tag', JSON.stringify(report.userTag)]]),
  ];
  const lines = rows.map(([name, value]) => `  ${name?.padEnd(14)}${value}\n`);
  return `${report.file}\n${lines.join('')}`;
}

function compressionText(
  { algorithm, blockBytes, blocks, decompressedBytes }: NonNullable<LayerReport['compression']>,
  fileBytes: number,
): string {
  const ratio = (decompressedBytes / fileBytes).toFixed(2);
  return `${algorithm}, ${blocks} blocks of ${byteText(blockBytes)}, ratio ${ratio}`;
}
