// The example in the documents, run as it stands there, against a server of this file's making.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const web = new URL('../../../../web/', import.meta.url);
const page = readFileSync(new URL('docs/leaderboards.html', web), 'utf8');
const unescape = (text) => text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"').replaceAll('&amp;', '&');
const { formatScore } = await import(new URL('js/model/score-format.js', web));

const LAP = { slug: 'lap', title: 'Fastest lap', order: 'ascending', ties: 'user_id', ranks: 'competition', format: { kind: 'duration', unit: 'ms' } };

class Server {
  constructor(url) {
    this.url = url;
    queueMicrotask(() => this.say({ type: 'hello', protocol: 1, now: '2026-11-23T10:00:00.000Z' }));
  }
  say(message) { this.onmessage({ data: JSON.stringify(message) }); }
  close() {}
  send(text) {
    const { type, board, submission_id, leaderboard, score } = JSON.parse(text);
    if (type === 'auth') this.say({ type: 'authenticated', user_id: 7, expires_at: '2026-11-24T10:00:00.000Z' });
    if (type === 'submit') this.say({ type: 'accepted', submission_id, user_id: 7, leaderboard, duplicate: false, scores: { 'lap:all_time': score }, improved: true });
    if (type !== 'subscribe') return;
    const id = 'lap:day_of_2026_11_23';
    const entries = [{ user_id: 1, username: 'kim', score: 60_000 }, { user_id: 2, username: 'lou', score: 60_000 }];
    this.say({ type: 'subscribed', board: id, as: board, resumed: false, leaderboard: LAP, window: { kind: 'day', starts: null, ends: null } });
    this.say({ type: 'snapshot', board: id, epoch: 'x', version: 1, entries });
  }
}

test('the example for browsers and Node runs', async () => {
  const [, code] = /id="js-example"><code>(.*?)<\/code>/s.exec(page);
  const program = unescape(code).replaceAll('https://scores.example/static/js/', String(new URL('js/', web)));
  const said = [];
  const { log } = console;
  Object.assign(globalThis, { token: 't', WebSocket: Server });
  console.log = (...words) => said.push(words.join(' '));
  try {
    await import(`data:text/javascript,${encodeURIComponent(`${program}\nclient.close();`)}`);
  } finally {
    console.log = log;
  }
  assert.deepEqual(said.sort(), ['1 kim 1:00.000', '1 lou 1:00.000', 'a new best']);
});

test('the table of formats is what is written', () => {
  const rows = [...page.matchAll(/<tr><td><code>(\{.*?\})<\/code><\/td><td class="n">(\d+)<\/td><td>(.*?)<\/td>/g)];
  assert.ok(rows.length >= 5);
  for (const [, format, score, text] of rows) assert.equal(formatScore(JSON.parse(format), Number(score)), text);
});
