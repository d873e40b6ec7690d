// The page of a channel: takes it from the URL, and puts its stream, its state and its figures on the screen.

import { Subscription } from './subscription.js';
import { KEPT, Tail } from './tail.js';

// The channel of `/`.
const DEFAULT_CHANNEL = 'default';

const DEFAULT_RELAY = '127.0.0.1:12000';

const STATES = {
  connecting: 'connecting',
  'catching-up': 'catching up',
  live: 'live',
  reconnecting: 'reconnecting',
  offline: 'offline',
  closed: 'closed',
};

const element = id => document.getElementById(id);
const { body } = document;
const path = location.pathname === '/' ? `/c/${DEFAULT_CHANNEL}` : location.pathname;
const channel = channelOf(path);
const isPattern = channel.split('/').some(segment => segment === '*' || segment === '**');

let count = 0;
let counted = { count: 0, at: performance.now() };
// When it connects again, by `performance.now()`, if it waits for that.
let retryAt;

const tail = new Tail(element('messages'), element('scroller'), isPattern, showTail);
const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
const subscription = new Subscription(`${scheme}//${location.host}${path}`, {
  onState: showState,
  onMessage(message) {
    count += 1;
    tail.push(message);
  },
  onNotice: notice => tail.push(notice),
});

function channelOf(path) {
  const name = path.replace(/^\/c\//, '');
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function showState({ name, reason, retryAt: at }) {
  const shown = name === 'reconnecting' && !navigator.onLine ? 'offline' : name;
  body.dataset.state = shown;
  show('state', STATES[shown]);
  const closed = name === 'closed';
  const lost = closed || name === 'reconnecting';
  if (lost) {
    const what = closed ? 'The relay closed the connection' : 'Connection lost';
    show('reason', reason ? `${what}: ${reason}` : what);
  }
  // While it tries again, the notice stays.
  if (lost || name === 'live') element('lost').hidden = !lost;
  element('again').hidden = closed;
  retryAt = at;
  showCountdown();
  showTail();
}

function showCountdown() {
  const seconds = Math.ceil((retryAt - performance.now()) / 1000);
  show('countdown', seconds > 0 ? `Reconnecting in ${seconds} s` : 'Reconnecting …');
}

function showTail() {
  show('count', count);
  const rows = tail.dropped === 1 ? 'row is' : 'rows are';
  show('dropped', `${tail.dropped} older ${rows} no longer shown: the page keeps ${KEPT.rows}, at most 32 MiB`);
  element('dropped').hidden = tail.dropped === 0;
  show('unseen', `${tail.unseen} new`);
  element('unseen').hidden = tail.unseen === 0;
  element('empty').hidden = !tail.isEmpty || body.dataset.state !== 'live';
}

function showRate() {
  const now = performance.now();
  show('rate', Math.round(((count - counted.count) * 1000) / (now - counted.at)));
  counted = { count, at: now };
}

// Changes the text of an element; the document is left alone where it says that already.
function show(id, text) {
  if (element(id).textContent !== String(text)) element(id).textContent = text;
}

function pause(paused) {
  tail.pause(paused);
  element('pause').setAttribute('aria-pressed', paused);
  body.toggleAttribute('data-paused', paused);
  if (!paused) tail.follow();
}

// How to send the first message to this channel, or to one that this pattern covers.
function showSnippets() {
  const example = channel.split('/').map(segment => (/^\*+$/.test(segment) ? 'example' : segment)).join('/');
  const secure = location.protocol === 'https:';
  const port = location.port || (secure ? '443' : '80');
  const host = location.hostname.replace(/^\[|\]$/g, '');
  const relay = location.hostname.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const where = relay === DEFAULT_RELAY ? '' : ` --relay ${secure ? 'tls://' : ''}${relay}`;
  const raw = example === DEFAULT_CHANNEL ? 'echo hello' : `printf 'RELAY/1 channel=${example}\\nhello\\n'`;
  // A shell would take a leading ~ for a home folder.
  const name = example.startsWith('~') ? `'${example}'` : example;
  show('by-client', `send-client${where} --channel ${name} -m hello`);
  show('by-nc', `${raw} | nc -N ${host} ${port}`);
  element('by-nc').parentElement.hidden = secure;
}

function copy(button) {
  const text = button.previousElementSibling.textContent;
  navigator.clipboard.writeText(text).then(() => {
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  }, () => getSelection().selectAllChildren(button.previousElementSibling));
}

document.title = `${channel} · relay`;
show('name', channel);
body.toggleAttribute('data-pattern', isPattern);
element('pause').addEventListener('click', () => pause(!tail.paused));
element('retry').addEventListener('click', () => subscription.retry());
element('unseen').addEventListener('click', () => {
  if (tail.paused) pause(false);
  else tail.follow();
  element('scroller').focus();
});
for (const button of document.querySelectorAll('button.copy')) {
  // Browsers give the clipboard to secure contexts only.
  button.hidden = !navigator.clipboard;
  button.addEventListener('click', () => copy(button));
}
document.addEventListener('keydown', event => {
  // A focused button has the space for itself.
  if (event.key !== ' ' || event.ctrlKey || event.altKey || event.metaKey || event.target.closest('button')) return;
  event.preventDefault();
  if (!event.repeat) pause(!tail.paused);
});
setInterval(showRate, 1000);
setInterval(showCountdown, 250);
showSnippets();
subscription.connect();
