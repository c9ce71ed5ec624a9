/**
 * Goal: each hot page is at its block of the disk, hidden pages at none.
 * Method: stacks of random layers, whose sectors say where they are from, against a search of the whole disk.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryFile } from '../../test/support/memory-file.js';
import { segmentsOf } from '../../test/support/segments.js';
import type { HotRuns } from '../hot-blob/hot-pages.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { NULL_UUID } from '../lsmt/layer-uuid.js';
import { hotBlocks, NO_BLOCK } from './hot-blocks.js';

const PAGE_BYTES = 4096;
const DISK_PAGES = 64;
const SECTORS = 8;

/** Runs of pages (place on the disk, count), packed behind the header's page in their order. */
const layers = fc.array(
  fc.array(fc.tuple(fc.nat(DISK_PAGES - 1), fc.integer({ min: 1, max: 8 })), { maxLength: 6 }),
  { minLength: 1, maxLength: 4 },
);

test('pages are found where the disk shows them', () => {
  fc.assert(
    fc.property(layers, fc.array(fc.nat(500), { maxLength: 60 }), (parts, wanted) => {
      const opened = parts.map((runs, number) => {
        let leaf = 1;
        const places = new Map<number, number>();
        for (const [first, count] of runs) {
          for (let page = first; page < Math.min(DISK_PAGES, first + count); page++) {
            if (!places.has(page)) places.set(page, leaf++);
          }
        }
        const data = Buffer.alloc(leaf * PAGE_BYTES);
        for (let i = 0; i < leaf; i++) data.writeUInt32LE(number * 1000 + i + 1, i * PAGE_BYTES);
        const segments = [...places]
          .sort(([a], [b]) => a - b)
          .map(([page, at]) => {
            return { start: page * SECTORS, length: SECTORS, moffset: at * SECTORS, source: 0 };
          });
        return {
          label: 'test layer',
          virtualBytes: DISK_PAGES * PAGE_BYTES,
          uuid: NULL_UUID,
          parentUuid: NULL_UUID,
          userTag: '',
          segments: segmentsOf(segments),
          sources: [new MemoryFile(data)],
          bottomOnly: false,
          leaves: leaf,
          close: () => {},
        };
      });
      const stack = new LayerStack(opened);
      const all = opened.flatMap(({ leaves }, layer) =>
        Array.from({ length: leaves }, (_, leaf) => ({ layer, leaf })),
      );
      const hot = [...new Set(wanted.map((each) => each % all.length))].map((each) => all[each]!);
      const runsOf = (digest: string): HotRuns | undefined => {
        const own = hot.flatMap(({ layer, leaf }, slot) =>
          digest === `${layer}` ? [{ leaf, slot }] : [],
        );
        if (own.length === 0) return undefined;
        own.sort((a, b) => a.leaf - b.leaf);
        return {
          leaves: Uint32Array.from(own, ({ leaf }) => leaf),
          counts: Uint32Array.from(own, () => 1),
          slots: Uint32Array.from(own, ({ slot }) => slot),
        };
      };
      const named = opened.map(({ sources }, layer) => ({ digest: `${layer}`, file: sources[0]! }));
      const blocks = hotBlocks(stack, named, { pages: hot.length, runsOf });
      const shown = new Map<number, number>();
      const page = Buffer.alloc(PAGE_BYTES);
      for (let block = 0; block < DISK_PAGES; block++) {
        stack.tryRead(page, block * PAGE_BYTES);
        if (page.readUInt32LE(0) > 0) shown.set(page.readUInt32LE(0), block);
      }
      const right = hot.map(({ layer, leaf }) => shown.get(layer * 1000 + leaf + 1) ?? NO_BLOCK);
      assert.deepEqual([...blocks], right);
    }),
    { numRuns: 200 },
  );
});
