// Owns what a server without any score says to whoever runs it: where to add the first, and lines to copy that hold this
// server's address. Never holds a token: this page is everybody's, and a command on the server's machine makes one.
import { copy } from './share.js';
import { server } from '../server.js';

const address = server.href.replace(/\/$/, '');

const WAYS = {
  curl: `curl -s ${address}/users \\
  -d '{"username":"Kim","email":"kim@example.com","password":"a long password"}'
TOKEN=$(realtime token --scope submit:any)
curl -s ${address}/scores -H "Authorization: Bearer $TOKEN" \\
  -d '{"submission_id":"first","user_id":1,"score_added":100}'`,
  Python: `# the token: realtime token --scope submit:any
from realtime.client import connect

async with connect("${address}", token=token) as client:
    await client.submit(100, user_id=1)`,
  JavaScript: [
    '// the token: realtime token --scope submit:any',
    `import { Client } from '${address}/static/js/client.js';`,
    '',
    `const client = new Client('${address}/ws', { token });`,
    'await client.submit({ user_id: 1, score_added: 100 });',
  ].join('\n'),
  OBS: `${address}/overlay`,
};

const element = (tag, properties, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

function way(name, lines) {
  const button = element('button', { type: 'button', className: 'copy', textContent: 'Copy' });
  button.addEventListener('click', async () => {
    button.textContent = (await copy(lines)) ? 'Copied' : 'Select and copy it';
    setTimeout(() => { button.textContent = 'Copy'; }, 2_000);
  });
  const code = element('pre', { tabIndex: 0 }, element('code', { textContent: lines }));
  return element('details', {}, element('summary', { textContent: name }), code, button);
}

export class FirstSteps {
  constructor(node) {
    const add = element('a', { href: 'play', className: 'button primary', textContent: 'Add the first score' });
    const docs = element('a', { href: 'docs', className: 'button', textContent: 'Documentation' });
    const demo = element('code', { textContent: 'realtime simulate' });
    node.replaceChildren(
      element('div', { className: 'ways' }, add, docs),
      element('p', {}, 'Or let invented players score: ', demo),
      ...Object.entries(WAYS).map(([name, lines]) => way(name, lines)),
    );
  }
}
