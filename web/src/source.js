// Where the page gets its data: from the server, or from blocks inside the page itself.

/** Text and blocks of a message. The blocks begin at `offset` of `buffer`. */
export function message(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const text = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { text, buffer, offset: 4 + length };
}

/** The points of a cube in the arrays that are drawn. */
function split(buffer, count, offset = 0) {
  return {
    places: new Uint16Array(buffer, offset, count * 4),
    colors: new Uint8Array(buffer, offset + count * 8, count * 4),
    before: new Uint16Array(buffer, offset + count * 12, count * 2),
  };
}

export class Server {
  constructor() {
    this.token = new URLSearchParams(location.search).get("t");
    this.answersAll = true;
  }

  url(path, values = {}) {
    const query = new URLSearchParams(values);
    if (this.token) query.set("t", this.token);
    return `${path}?${query}`;
  }

  async fetch(path, values, body) {
    const options = body && {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    };
    let reply;
    try {
      reply = await fetch(this.url(path, values), options);
    } catch {
      throw new Error("The program does not answer. Start geopurify view again, and reload this page.");
    }
    if (reply.ok) return reply;
    const told = await reply.json().catch(() => ({}));
    throw new Error(told.error ?? `The program answered with ${reply.status}.`);
  }

  async list() {
    return (await (await this.fetch("/api/list")).json()).scans;
  }

  async open(scan) {
    this.scan = scan;
    return (await this.fetch("/api/scan", { scan })).json();
  }

  async points(from, count) {
    const reply = await this.fetch("/api/points", { scan: this.scan, from, count });
    return split(await reply.arrayBuffer(), count);
  }

  async objects() {
    return message(await (await this.fetch("/api/objects", { scan: this.scan })).arrayBuffer());
  }

  async ask(words) {
    const reply = await this.fetch("/api/query", {}, { scan: this.scan, words });
    return message(await reply.arrayBuffer());
  }

  async label(words) {
    const reply = await this.fetch("/api/labels", {}, { scan: this.scan, words });
    return message(await reply.arrayBuffer());
  }

  async page(asked) {
    return (await this.fetch("/api/export", {}, { scan: this.scan, asked })).blob();
  }

  sheet(scan) {
    return this.url("/api/sheet", { scan });
  }
}

export class Inside {
  /** `blocks` are the elements that hold data. */
  constructor(blocks) {
    this.blocks = blocks;
    this.answersAll = false;
    this.replies = [];
  }

  async unpack(block) {
    const bytes = Uint8Array.from(atob(block.textContent), (c) => c.charCodeAt(0));
    block.textContent = "";
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return message(await new Response(stream).arrayBuffer());
  }

  async list() {
    return [{}];
  }

  async open() {
    const messages = await Promise.all(this.blocks.map((block) => this.unpack(block)));
    const scan = messages.shift();
    this.replies = messages;
    this.arrays = split(scan.buffer, scan.text.points, scan.offset);
    return scan.text;
  }

  async points(from, count) {
    const part = (array, width) => array.subarray(from * width, (from + count) * width);
    const { places, colors, before } = this.arrays;
    return { places: part(places, 4), colors: part(colors, 4), before: part(before, 2) };
  }

  async objects() {
    return this.replies[0];
  }

  /** What this page can answer. */
  asked() {
    return this.replies.slice(1).map(({ text }) => (text.kind === "labels" ? text.words.join(", ") : text.question));
  }

  reply(found) {
    if (found) return found;
    const list = this.asked();
    const known = list.length ? `This file holds the answers to: ${list.join("; ")}.` : "This file holds no answers.";
    throw new Error(`${known} geopurify view answers any words.`);
  }

  async ask(words) {
    return this.reply(this.replies.find(({ text }) => text.kind === "answer" && text.question === words));
  }

  async label(words) {
    const wanted = words.join("\n");
    return this.reply(this.replies.find(({ text }) => text.kind === "labels" && text.words.join("\n") === wanted));
  }
}
