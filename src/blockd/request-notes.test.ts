/** Goal: a request becomes a note with its story; a busy device sends few notes, and the next tells how many it left out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type RequestNote, RequestNotes } from './request-notes.js';

test('a note has the range, the time and the reason of a failure', () => {
  const sent: RequestNote[] = [];
  const notes = new RequestNotes((note) => sent.push(note));
  notes.ended('read', 0, 512, 0.0123456, 'local', undefined);
  notes.started('read', 4096, 1024);
  notes.ended('read', 4096, 1024, 31.5, 'loaded', new Error('the registry is away'));
  assert.deepEqual(sent, [
    {
      request: 'read',
      offset: 0,
      length: 512,
      answer: { from: 'hit', ms: 0.012, problem: undefined },
      suppressed: 0,
    },
    { request: 'read', offset: 4096, length: 1024, answer: undefined, suppressed: 0 },
    {
      request: 'read',
      offset: 4096,
      length: 1024,
      answer: { from: 'loaded', ms: 31.5, problem: 'the registry is away' },
      suppressed: 0,
    },
  ]);
});

test('a device sends 100 notes a second, and counts the suppressed ones', async () => {
  const sent: RequestNote[] = [];
  const notes = new RequestNotes((note) => sent.push(note));
  for (let i = 0; i < 1000; i++) notes.ended('read', i * 512, 512, 0.01, 'local', undefined);
  assert.equal(sent.length, 100);
  await sleep(1050);
  notes.started('read', 0, 512);
  assert.equal(sent.length, 101);
  assert.equal(sent[100]!.suppressed, 900);
});
