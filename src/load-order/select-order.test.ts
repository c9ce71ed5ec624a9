/**
 * Goal: the choice goes by command line, name, usual start and default, and then by kind. The order of the registry's list changes
 * nothing. Orders of different starts do not replace each other.
 * Method: lists of annotations, in both directions.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { digestOf } from '../../test/support/load-orders.js';
import { commandDigest, commandNamed, commandText } from './command-line.js';
import {
  type FoundOrder,
  isPublishedAs,
  NO_WISH,
  type OrderWish,
  publishedAs,
  sameStart,
  selectOrder,
  variantOf,
} from './select-order.js';

const found = (digest: number, about: Readonly<Record<string, string>>): FoundOrder => {
  const own = Object.entries(about).map(([key, value]) => [`dev.obd-ts.load-order.${key}`, value]);
  return {
    annotations: { ...Object.fromEntries(own), 'dev.obd-ts.load-order': `${digestOf(digest)}@9` },
  };
};

const APP = commandDigest(['python3', 'app.py', '--all']);
const SHELL = commandDigest(['sh']);
const USUAL = commandDigest(['/entry', 'serve']);

const predicted = found(1, { kind: 'predicted' });
const list = found(2, { kind: 'list' });
const recorded = found(9, { kind: 'recorded' });
const named = found(3, { kind: 'predicted', name: 'batch' });
const otherName = found(4, { kind: 'recorded', name: 'web' });
const command = found(5, { kind: 'predicted', command: ' python3  app.py --all' });
const hashed = found(6, { kind: 'recorded', command: APP });
const namedCommand = found(10, { kind: 'list', command: APP, name: 'batch' });
const usual = found(11, { kind: 'recorded', command: USUAL });
const foreseen = found(14, { kind: 'predicted', command: USUAL });
const namedUsual = found(12, { kind: 'recorded', command: USUAL, name: 'blue' });
const ALL = [predicted, list, recorded, named, otherName, command, hashed];

describe('selectOrder()', () => {
  const chosen = (all: readonly FoundOrder[], wish: Partial<OrderWish>) => {
    const full = { ...NO_WISH, ...wish };
    const best = selectOrder(all, full);
    assert.equal(selectOrder(all.toReversed(), full), best);
    return best;
  };

  test('takes the order of the command line first', () => {
    assert.equal(chosen(ALL, { command: APP, names: ['batch'] }), hashed);
    assert.equal(chosen([predicted, command], { command: APP }), command);
  });

  test('takes the one of several of a command line that has the name, or none', () => {
    const all = [...ALL, namedCommand];
    assert.equal(chosen(all, { command: APP, names: ['batch'] }), namedCommand);
    assert.equal(chosen(all, { command: APP }), hashed);
    assert.equal(chosen([recorded, namedCommand], { command: APP }), namedCommand);
  });

  test('takes the first name that an order has', () => {
    const wish = { command: SHELL, imageCommand: USUAL, names: ['none', 'batch', 'web'] };
    assert.equal(chosen([...ALL, usual], wish), named);
  });

  test("takes the image's own command line where the container's is not known", () => {
    const all = [...ALL, usual, namedUsual];
    assert.equal(chosen(all, { imageCommand: USUAL }), usual);
    assert.equal(chosen(all, { imageCommand: USUAL, names: ['blue'] }), namedUsual);
    assert.equal(chosen(all, { command: USUAL, imageCommand: USUAL }), usual);
    assert.equal(chosen([recorded, namedUsual], { imageCommand: USUAL }), recorded);
  });

  test('else takes a default, a recorded one before a list and a prediction', () => {
    assert.equal(chosen(ALL, { names: ['none'] }), recorded);
    assert.equal(chosen([predicted, list, named], { imageCommand: USUAL }), list);
    assert.equal(chosen([found(8, { kind: 'other' }), predicted], {}), predicted);
    assert.equal(chosen([predicted, usual], { command: SHELL, imageCommand: USUAL }), predicted);
  });

  test('takes the only command line where nothing is known of the container', () => {
    assert.equal(chosen([named, command, hashed], { imageCommand: USUAL }), hashed);
    assert.equal(chosen([named, namedUsual], {}), undefined);
    assert.equal(chosen([hashed, found(13, { kind: 'recorded', command: SHELL })], {}), undefined);
  });

  test('takes a recorded one of any of these rules before a prediction', () => {
    const wish = { imageCommand: USUAL };
    assert.equal(chosen([foreseen, hashed], wish), hashed);
    assert.equal(chosen([foreseen, recorded], wish), recorded);
    assert.equal(chosen([foreseen, usual, hashed], wish), usual);
    assert.equal(
      chosen([foreseen, hashed, found(13, { kind: 'recorded', command: SHELL })], wish),
      foreseen,
    );
    assert.equal(chosen([foreseen, hashed], { ...wish, command: SHELL }), undefined);
  });

  test('takes the smaller digest among equals', () => {
    const smaller = found(7, { kind: 'recorded' });
    assert.equal(chosen([recorded, smaller], {}), smaller);
  });

  test('takes none of another command line', () => {
    const all = [command, hashed, usual, namedUsual];
    assert.equal(chosen([...all, named], { command: SHELL, imageCommand: USUAL }), undefined);
    assert.equal(chosen(all, { command: SHELL, names: ['blue'] }), undefined);
    assert.equal(chosen([], {}), undefined);
  });
});

describe('a published order', () => {
  const wishes: Readonly<Record<string, readonly [Partial<OrderWish>, FoundOrder]>> = {
    'the usual start': [{ imageCommand: USUAL }, usual],
    'a start of which nothing is known': [{}, predicted],
    'another command line': [{ command: APP, imageCommand: USUAL }, hashed],
    'a name': [{ imageCommand: USUAL, names: ['web', 'usual'] }, otherName],
    'a name and a command line': [{ command: APP, names: ['batch'] }, namedCommand],
  };
  for (const [what, [wish, own]] of Object.entries(wishes)) {
    test(`replaces only an order of ${what}`, () => {
      const all = [predicted, usual, hashed, otherName, namedCommand];
      const full = { ...NO_WISH, ...wish };
      assert.deepEqual(
        all.filter((each) => isPublishedAs(each, publishedAs(full, each))),
        [own],
      );
      assert.equal(sameStart(all, full), own);
      const other = found(20, { kind: 'recorded', name: 'x' });
      assert.equal(isPublishedAs(other, publishedAs(full, other)), false);
    });
  }

  test('keeps the command line of its name', () => {
    const wish = { ...NO_WISH, imageCommand: USUAL, names: ['batch'] };
    assert.deepEqual(publishedAs(wish, namedCommand), { command: APP, name: 'batch' });
    assert.deepEqual(publishedAs(wish), { command: '', name: 'batch' });
    assert.equal(sameStart([namedCommand], wish), namedCommand);
    assert.equal(sameStart([namedCommand, named], wish), named);
    // Two commands of one name stay apart.
    const as = publishedAs(wish, named);
    assert.deepEqual([isPublishedAs(named, as), isPublishedAs(namedCommand, as)], [true, false]);
  });
});

test('variantOf() is empty for the usual start, and different for all others', () => {
  const usualWish = { ...NO_WISH, imageCommand: USUAL };
  for (const wish of [NO_WISH, usualWish, { ...usualWish, command: USUAL }]) {
    assert.equal(variantOf(wish), '');
  }
  const others = [
    { ...usualWish, command: APP },
    { ...usualWish, names: ['web'] },
    { ...usualWish, names: ['web', 'batch'] },
    { ...usualWish, command: APP, names: ['web'] },
  ];
  assert.equal(new Set(['', ...others.map(variantOf)]).size, 5);
});

test('command lines are compared word by word, as digests', () => {
  assert.equal(commandText([' a', 'b\n c ']), 'a b c');
  assert.equal(commandNamed(' a  b c'), commandDigest(['a', 'b c']));
  assert.equal(commandNamed(APP), APP);
  assert.deepEqual([commandNamed(), commandDigest([]), commandDigest([' '])], ['', '', '']);
});
