// A channel or a pattern as one stream that outlives its connections: what was lost with one comes with the next,
// nothing comes twice, and what is missing is told. Knows the protocol and nothing of the page.

const SUBPROTOCOL = 'relay.v1.json';

// How many messages of the past the first connection asks for.
const LAST = 100;

// Between attempts, in ms: a random time up to a ceiling that doubles from the least to the most, and falls back
// once a connection has been good for so long.
const BACKOFF = { least: 250, most: 30_000, calm: 10_000 };

// A script sees no pings of the connection: after so long a silence it asks, and gives up without an answer. In ms.
const HEARTBEAT = { silence: 25_000, answer: 10_000 };

const REASONS = {
  retention: 'they were older than what the relay keeps',
  lagged: 'this page was too slow',
  epoch: 'the relay’s store is new',
  crash: 'they were not on disk yet when the relay crashed',
};

// Calls `onState({ name, reason?, retryAt? })` with a name of `connecting`, `catching-up`, `live`, `reconnecting`
// or `closed`, where `retryAt` is a time of `performance.now()`; `onMessage({ channel, seq, time, text | base64 })`;
// `onNotice({ text })`, again with the same object when its text has become another.
export class Subscription {
  #url;
  #on;
  #socket = null;
  // Where to resume: { epoch, seq }.
  #position = null;
  // The last gap told of each channel, so that a resumed stream does not tell it again.
  #gaps = new Map();
  #attempt = 0;
  #liveSince = Infinity;
  #state = 'connecting';
  #timer = 0;
  #heartbeat = 0;

  constructor(url, handlers) {
    this.#url = url;
    this.#on = handlers;
    addEventListener('online', () => this.retry());
  }

  connect() {
    clearTimeout(this.#timer);
    this.#enter({ name: 'connecting' });
    const since = this.#position ? `since=${this.#position.epoch}-${this.#position.seq}` : `last=${LAST}`;
    const socket = new WebSocket(`${this.#url}?${since}`, SUBPROTOCOL);
    this.#socket = socket;
    socket.onopen = () => this.#listen();
    socket.onmessage = event => {
      this.#listen();
      this.#hear(JSON.parse(event.data));
    };
    socket.onclose = event => this.#lost(event.code, event.reason);
  }

  // Tries at once instead of at the end of the wait.
  retry() {
    if (this.#state === 'reconnecting') this.connect();
  }

  #enter(state) {
    this.#state = state.name;
    this.#on.onState(state);
  }

  #hear(event) {
    switch (event.type) {
      case 'message': return this.#message(event);
      case 'hello': return this.#hello(event);
      case 'gap': return this.#gap(event);
      case 'live':
        this.#liveSince = performance.now();
        return this.#enter({ name: 'live' });
      case 'error': return this.#on.onNotice({ text: `The relay reports an error: ${event.message}` });
    }
  }

  #hello({ epoch, from, recovered, reason }) {
    const resumed = this.#position;
    // Of what the store no longer keeps, gap events tell exactly.
    if (resumed && !recovered && reason !== 'retention') {
      const why = REASONS[reason] ?? 'the relay does not say why';
      this.#on.onNotice({ text: `Messages after ${resumed.seq} may be missing: ${why}` });
    }
    if (resumed?.epoch !== epoch) this.#gaps.clear();
    this.#position = { epoch, seq: from };
    this.#enter({ name: 'catching-up' });
  }

  #message(message) {
    if (message.seq <= this.#position.seq) return;
    this.#position.seq = message.seq;
    this.#on.onMessage(message);
  }

  #gap({ channel, after, before, count, reason }) {
    const told = this.#gaps.get(channel);
    if (told && before <= told.before) return;
    // A gap that has grown since it was told of is one gap.
    const notice = told?.after === after ? told.notice : {};
    const where = after === 0 ? `before ${before}` : `after ${after}, before ${before}`;
    notice.text = `${howMany(count)} missing: ${REASONS[reason] ?? reason} (${channel}, ${where})`;
    this.#gaps.set(channel, { after, before, notice });
    this.#on.onNotice(notice);
  }

  // Something was heard: the next silence begins.
  #listen() {
    clearTimeout(this.#heartbeat);
    const socket = this.#socket;
    this.#heartbeat = setTimeout(() => {
      socket.send('{"type":"ping"}');
      // A dead connection takes its time to close: it is left behind.
      this.#heartbeat = setTimeout(() => this.#lost(1006, 'the relay does not answer'), HEARTBEAT.answer);
    }, HEARTBEAT.silence);
  }

  #lost(code, reason) {
    clearTimeout(this.#heartbeat);
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    // These two only say that the peer said nothing.
    const why = reason || (code === 1005 || code === 1006 ? '' : `code ${code}`);
    if (code >= 4500 && code < 4600) {
      this.#enter({ name: 'closed', reason: why });
      return;
    }
    if (performance.now() - this.#liveSince >= BACKOFF.calm) this.#attempt = 0;
    this.#liveSince = Infinity;
    const delay = Math.random() * Math.min(BACKOFF.most, BACKOFF.least * 2 ** this.#attempt);
    this.#attempt = Math.min(this.#attempt + 1, 16);
    this.#timer = setTimeout(() => this.connect(), delay);
    this.#enter({ name: 'reconnecting', reason: why, retryAt: performance.now() + delay });
  }
}

function howMany(count) {
  if (count === undefined) return 'Messages are';
  return count === 1 ? '1 message is' : `${count} messages are`;
}
