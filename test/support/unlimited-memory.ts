/** Memory for the indexes of an image whose size a test does not limit. */
import type { IndexMemory } from '../../src/io/index-budget.js';

export const UNLIMITED_INDEX_MEMORY: IndexMemory = { async charge() {}, release() {} };
