// The tail of a channel as rows: keeps the newest within bounds, draws once per animation frame, and stays at the
// bottom unless the reader went up or paused. Payloads are text and nothing else.

// What is kept at most, drawn or waiting. Bytes are counted as UTF-16 units of payloads, plus a row's own cost.
export const KEPT = { rows: 10_000, bytes: 32 * 1024 * 1024 };

// Rows made in one frame, so that a burst does not freeze the page.
const ROWS_PER_FRAME = 2_500;

// Of a binary payload so many bytes are shown.
const HEX_BYTES = 256;

// A text beyond this, in UTF-16 units or lines, is shown in part until the reader wants all of it.
const LONG = { length: 2_000, lines: 15 };

const ROW_BYTES = 64;

// How near to its end the list counts as there, in CSS pixels.
const NEAR = 4;

// Shows items in `list`, which scrolls in `scroller`. An item is { text } for a notice, else a message.
// `onChange` is called after each frame in which what is shown has changed.
export class Tail {
  #list;
  #scroller;
  #withChannel;
  #onChange;
  #drawn = new Queue();
  #waiting = new Queue();
  #frame = 0;
  // Something between what is drawn and what waits was dropped.
  #torn = false;
  #paused = false;
  #following = true;
  #pinned = { top: 0, height: 0 };
  #day = new Date().toDateString();
  // Rows dropped because of the bounds; rows that came while the reader looked elsewhere.
  dropped = 0;
  unseen = 0;

  constructor(list, scroller, withChannel, onChange) {
    this.#list = list;
    this.#scroller = scroller;
    this.#withChannel = withChannel;
    this.#onChange = onChange;
    scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    // Who opens a row wants to read it.
    list.addEventListener('click', event => {
      if (event.target.closest('.expand')) this.#following = false;
    });
    // Rows get their height when they are laid out, and lines wrap anew when the window changes.
    const sizes = new ResizeObserver(() => this.#pin());
    sizes.observe(list);
    sizes.observe(scroller);
  }

  get isEmpty() {
    return this.#drawn.length + this.#waiting.length === 0;
  }

  get paused() {
    return this.#paused;
  }

  // Adds a message or a notice, which is shown in the next frame. A notice that is still there is only changed.
  push(item) {
    if (item.kept) {
      if (item.row) item.row.textContent = item.text;
      return;
    }
    item.bytes = ROW_BYTES + (item.text ?? item.base64).length;
    this.#waiting.push(item);
    while (this.#waiting.length > 1 && this.#waiting.exceeds(KEPT)) {
      this.#drop(this.#waiting);
      this.#torn = true;
    }
    if (this.#paused) this.unseen += 1;
    this.#schedule();
  }

  pause(paused) {
    this.#paused = paused;
    this.#schedule();
  }

  // Goes to the newest and stays there.
  follow() {
    this.#following = true;
    this.unseen = 0;
    this.#pin();
    this.#schedule();
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    if (!this.#paused) this.#append();
    this.#onChange();
    if (!this.#paused && this.#waiting.length > 0) this.#schedule();
  }

  #append() {
    const fresh = document.createDocumentFragment();
    const count = Math.min(this.#waiting.length, ROWS_PER_FRAME);
    // The oldest go first, so that what is shown has no hole.
    while (this.#drawn.length > 0 && (this.#torn || this.#drawn.exceeds(KEPT, this.#waiting))) this.#drop(this.#drawn);
    this.#torn = false;
    for (let i = 0; i < count; i += 1) {
      const item = this.#waiting.shift();
      this.#separateDays(item, fresh);
      item.row = item.seq === undefined ? noticeRow(item.text, 'notice') : messageRow(item, this.#withChannel);
      fresh.append(item.row);
      this.#drawn.push(item);
      // The row has it now.
      if (item.seq !== undefined) item.text = item.base64 = undefined;
    }
    this.#list.append(fresh);
    if (this.#following) this.#pin();
    else this.unseen += count;
  }

  // A row that says the day, where it is another than that of the row before.
  #separateDays(item, fresh) {
    if (item.seq === undefined) return;
    const date = new Date(item.time / 1000);
    const day = date.toDateString();
    if (day === this.#day) return;
    this.#day = day;
    item.dayRow = noticeRow(date.toLocaleDateString(undefined, { dateStyle: 'full' }), 'day');
    fresh.append(item.dayRow);
  }

  #drop(queue) {
    const item = queue.shift();
    item.dayRow?.remove();
    item.row?.remove();
    item.kept = false;
    this.dropped += 1;
  }

  #pin() {
    if (!this.#following || this.#paused) return;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#pinned = { top: this.#scroller.scrollTop, height: this.#scroller.scrollHeight };
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    if (scrollHeight - scrollTop - clientHeight <= NEAR) {
      this.#following = true;
      if (!this.#paused) this.unseen = 0;
      this.#schedule();
    } else if (scrollTop < this.#pinned.top - 1 && scrollHeight >= this.#pinned.height) {
      // Nothing became smaller, and yet it moved up: that was the reader.
      this.#following = false;
    }
  }
}

// First in, first out, with the sum of the bytes. An array's own shift would move all that is behind.
class Queue {
  #items = [];
  #first = 0;
  bytes = 0;

  get length() {
    return this.#items.length - this.#first;
  }

  // Whether this and another queue together are more than what is kept.
  exceeds(kept, other) {
    return this.length + (other?.length ?? 0) > kept.rows || this.bytes + (other?.bytes ?? 0) > kept.bytes;
  }

  push(item) {
    item.kept = true;
    this.#items.push(item);
    this.bytes += item.bytes;
  }

  shift() {
    const item = this.#items[this.#first];
    this.#items[this.#first] = undefined;
    this.#first += 1;
    this.bytes -= item.bytes;
    if (this.#first > 1024 && this.#first * 2 > this.#items.length) {
      this.#items.splice(0, this.#first);
      this.#first = 0;
    }
    return item;
  }
}

function messageRow({ channel, seq, time, text, base64 }, withChannel) {
  const row = document.createElement('li');
  row.dataset.seq = seq;
  const date = new Date(time / 1000);
  const when = cell('time', 'time', clock(date));
  when.title = date.toISOString();
  row.append(when, cell('span', 'seq', seq));
  if (withChannel) row.append(cell('span', 'channel', channel));
  if (text === undefined) {
    row.className = 'binary';
    row.append(cell('span', 'payload', hex(base64)), cell('span', 'size', `${binaryLength(base64)} B binary`));
  } else {
    row.append(cell('span', 'payload', text));
    const isLong = text.length > LONG.length || text.split('\n', LONG.lines + 1).length > LONG.lines;
    if (isLong) row.append(expander(row, text.length));
  }
  return row;
}

// A button that shows all of a long payload, and again only its beginning.
function expander(row, length) {
  const button = cell('button', 'expand', `Show all ${length} characters`);
  button.type = 'button';
  button.ariaExpanded = 'false';
  row.classList.add('long');
  button.addEventListener('click', () => {
    const whole = row.classList.toggle('whole');
    button.ariaExpanded = String(whole);
    button.textContent = whole ? 'Show less' : `Show all ${length} characters`;
  });
  return button;
}

function noticeRow(text, kind) {
  const row = document.createElement('li');
  row.className = kind;
  row.textContent = text;
  return row;
}

function cell(name, kind, text) {
  const element = document.createElement(name);
  element.className = kind;
  element.textContent = text;
  return element;
}

// The local time of day with milliseconds.
function clock(date) {
  const two = number => String(number).padStart(2, '0');
  const ms = String(date.getMilliseconds()).padStart(3, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

function hex(base64) {
  // Four characters are three bytes.
  const bytes = atob(base64.slice(0, Math.ceil(HEX_BYTES / 3) * 4)).slice(0, HEX_BYTES);
  const shown = Array.from(bytes, byte => byte.charCodeAt(0).toString(16).padStart(2, '0')).join(' ');
  return binaryLength(base64) > HEX_BYTES ? `${shown} …` : shown;
}

function binaryLength(base64) {
  const padding = base64.endsWith('==') ? 2 : base64.endsWith('=') ? 1 : 0;
  return (base64.length / 4) * 3 - padding;
}
