/**
 * Goal: the order of the container's own command line wins over a name, a name over the default, and the better kind among
 * equals, in whatever order a registry lists them.
 * Method: lists of annotations, in both directions.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { digestOf } from '../../test/support/load-orders.js';
import { sha256Of } from '../oci/digest.js';
import { commandText, type FoundOrder, type OrderWish, selectOrder } from './select-order.js';

const found = (digest: number, about: Readonly<Record<string, string>>): FoundOrder => {
  const own = Object.entries(about).map(([key, value]) => [`dev.obd-ts.load-order.${key}`, value]);
  return {
    annotations: { ...Object.fromEntries(own), 'dev.obd-ts.load-order': `${digestOf(digest)}@9` },
  };
};

const predicted = found(1, { kind: 'predicted' });
const list = found(2, { kind: 'list' });
const recorded = found(9, { kind: 'recorded' });
const named = found(3, { kind: 'predicted', name: 'batch' });
const otherName = found(4, { kind: 'recorded', name: 'web' });
const command = found(5, { kind: 'predicted', command: ' python3  app.py --all' });
const hashed = found(6, {
  kind: 'recorded',
  command: sha256Of(Buffer.from('python3 app.py --all')),
});
const ALL = [predicted, list, recorded, named, otherName, command, hashed];

describe('selectOrder()', () => {
  const chosen = (all: readonly FoundOrder[], wish: Partial<OrderWish>) => {
    const full = { args: undefined, names: [], ...wish };
    const best = selectOrder(all, full);
    assert.equal(selectOrder(all.toReversed(), full), best);
    return best;
  };

  test('takes the order of the command line first', () => {
    const args = ['python3', 'app.py', '--all'];
    assert.equal(chosen(ALL, { args, names: ['batch'] }), hashed);
    assert.equal(chosen([predicted, command], { args }), command);
  });

  test('takes the first name that an order has', () => {
    const args = ['python3', 'app.py'];
    assert.equal(chosen(ALL, { args, names: ['none', 'batch', 'web'] }), named);
  });

  test('else takes a default, a recorded one before a list and a prediction', () => {
    assert.equal(chosen(ALL, { names: ['none'] }), recorded);
    assert.equal(chosen([predicted, list, named], {}), list);
    assert.equal(chosen([found(8, { kind: 'other' }), predicted], {}), predicted);
  });

  test('takes the smaller digest among equals', () => {
    const smaller = found(7, { kind: 'recorded' });
    assert.equal(chosen([recorded, smaller], {}), smaller);
  });

  test('takes none of another command line', () => {
    assert.equal(chosen([command, hashed, named], { args: ['sh'] }), undefined);
    assert.equal(chosen([], {}), undefined);
  });

  test('compares command lines word by word', () => {
    assert.equal(commandText([' a', 'b\n c ']), 'a b c');
  });
});
