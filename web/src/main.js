// The page: what is shown, asked, listed and kept in the URL.
import { Cloud } from "./cloud.js";
import { css, heat, objectColor } from "./colors.js";
import { $, download, grouped, icon, make, short, stop, svg, toast } from "./elements.js";
import { Inside, Server } from "./source.js";
import { Stage, Vector3, boxOf } from "./stage.js";

const MODES = [
  ["scan", "Scan"], ["labels", "Labels"], ["swipe", "Before / after"], ["objects", "Objects"], ["score", "Score"],
  ["margin", "Margin"], ["heat", "Heat"],
];
const TITLES = { score: "cosine with the label", margin: "lead over the next label", heat: "cosine with the words" };
/** Objects in the list. More make it no more useful. */
const MOST_LISTED = 200;
/** Steps that can be undone. */
const MOST_STEPS = 8;
/** Milliseconds after the last key before words are asked for. */
const PAUSE = 350;

const blocks = [...document.querySelectorAll("script[data-kind]")];
const source = blocks.length ? new Inside(blocks) : new Server();
const state = {
  mode: "labels", hidden: new Set(), selected: 0, hovered: 0, boxes: false, measuring: false, measured: [], size: 0, split: 0.5,
  clip: [[0, 1], [0, 1], [0, 1]], theme: "dark",
};
let scan, cloud, stage, initial, shown;
/** Earlier views, for undo; what was asked, for the list and the saved page. */
const steps = [];
const asked = [];
let asking = 0;

const storage = { get: () => { try { return localStorage.getItem("geopurify-theme"); } catch { return null; } }, set: (theme) => { try { localStorage.setItem("geopurify-theme", theme); } catch { /* a file may have no storage */ } } };

// ---------------------------------------------------------------- theme

function setTheme(theme) {
  state.theme = theme;
  document.documentElement.dataset.theme = theme;
  const style = getComputedStyle(document.documentElement);
  stage?.setGround(style.getPropertyValue("--back").trim(), style.getPropertyValue("--back-far").trim());
}

// ---------------------------------------------------------------- replies

/** A reply in the arrays that are drawn: what each point is called, and what it is of the question. */
function unpack({ text, buffer, offset }) {
  const n = scan.points;
  const objects = new Uint8Array(buffer, offset, n * 2);
  const pairs = text.kind === "labels" ? new Uint8Array(buffer, offset + n * 2, n * 2) : null;
  const askedOf = new Uint8Array(n * 4);
  for (let i = 0; i < n; i++) {
    askedOf[i * 4] = objects[i * 2];
    askedOf[i * 4 + 1] = objects[i * 2 + 1];
  }
  const reply = { ...text, asked: askedOf, named: null };
  if (text.kind === "answer") {
    const heats = new Uint8Array(buffer, offset + n * 2, n);
    for (let i = 0; i < n; i++) askedOf[i * 4 + 2] = heats[i];
  } else if (text.kind === "labels") {
    const scores = new Uint8Array(buffer, offset + n * 4, n);
    const margins = new Uint8Array(buffer, offset + n * 5, n);
    reply.named = new Uint8Array(n * 4);
    for (let i = 0; i < n; i++) {
      reply.named.set([pairs[i * 2], pairs[i * 2 + 1], scores[i], margins[i]], i * 4);
    }
  }
  reply.objects = text.objects.map((object, index) => ({ ...object, index: index + 1, box: boxOf(object, scan.origin) }));
  return reply;
}

/** Shows what a reply says. Labels stay as they are for an answer. */
function show(next, { keepMode } = {}) {
  shown = next;
  const { reply, labels } = next;
  cloud.setNamed(labels.named);
  cloud.setAsked(reply.asked);
  select(0, {});
  hover(0);
  if (!keepMode) setMode(reply.kind === "answer" ? "heat" : reply.kind === "labels" ? "labels" : state.mode);
  else setMode(state.mode);
  showLegend();
  showObjects();
  showAnswer();
  $("undo").hidden = !steps.length;
  for (const button of $("asked").children) button.setAttribute("aria-current", button.textContent === wordsOf(reply));
  saveState();
}

const wordsOf = (reply) => (reply.kind === "answer" ? reply.question : reply.kind === "labels" ? reply.words.join(", ") : "");

function showAnswer() {
  const { reply } = shown;
  const told = $("answer");
  told.hidden = reply.kind === "objects";
  told.className = "";
  if (reply.kind === "answer") {
    const count = reply.places === 1 ? "1 place" : `${grouped(reply.places)} places`;
    const others = reply.competing.length === 1 ? `“${reply.competing[0]}”` : `${reply.competing.length} other words`;
    if (!reply.known) {
      told.className = "unknown";
      told.textContent = `The model never met “${reply.question}” in training, so these places mean little.`;
    } else if (reply.nearest) told.textContent = `${count} nearer to “${reply.question}” than to ${others}`;
    else told.textContent = `Nothing is nearer to “${reply.question}” than to ${others}. The most similar: ${count}`;
  } else if (reply.kind === "labels") {
    const unknown = reply.legend.filter(({ known, label }) => !known && label >= 0).map(({ name }) => `“${name}”`);
    told.className = unknown.length ? "unknown" : "";
    told.textContent = unknown.length
      ? `The model never met ${unknown.join(", ")} in training, so it cannot know ${unknown.length > 1 ? "them" : "it"}.`
      : `Labelled again by ${reply.words.length === 1 ? "1 word" : `${reply.words.length} words`}`;
  }
}

// ---------------------------------------------------------------- words

let typing;
function typed() {
  clearTimeout(typing);
  // A saved page answers what it holds, and does not complain about every key.
  if (source.answersAll || source.asked().includes($("words").value.trim())) typing = setTimeout(ask, PAUSE);
}

async function ask(words = $("words").value) {
  clearTimeout(typing);
  const list = words.split(/[,;]/).map((word) => word.trim().split(/\s+/).join(" ")).filter(Boolean);
  const isLabels = list.length > 1;
  const text = list.join(", ");
  if (!list.length || text === wordsOf(shown.reply)) return;
  const own = ++asking;
  $("busy").hidden = false;
  try {
    const start = performance.now();
    const reply = unpack(await (isLabels ? source.label(list) : source.ask(list[0])));
    if (own !== asking) return;
    canvas.dataset.answer = String(Math.round(performance.now() - start));
    steps.push({ ...shown, mode: state.mode });
    if (steps.length > MOST_STEPS) steps.shift();
    remember(text, isLabels ? { labels: list } : { question: list[0] });
    state.hidden = isLabels ? new Set() : state.hidden;
    show({ reply, labels: isLabels ? reply : shown.labels });
  } catch (error) {
    if (own === asking) toast(error.message);
  } finally {
    if (own === asking) $("busy").hidden = true;
  }
}

function remember(text, question) {
  const old = asked.findIndex((one) => one.text === text);
  if (old >= 0) asked.splice(old, 1);
  asked.unshift({ text, question });
  showAsked();
}

function showAsked() {
  $("asked").replaceChildren(
    ...asked.slice(0, 12).map(({ text }) =>
      make("button", { type: "button", textContent: text, title: text, onclick: () => { $("words").value = text; ask(text); } })),
  );
}

function undo() {
  const step = steps.pop();
  if (!step) return;
  asking++;
  $("busy").hidden = true;
  const { mode, ...before } = step;
  state.mode = mode;
  show(before, { keepMode: true });
  $("words").value = wordsOf(before.reply);
}

// ---------------------------------------------------------------- legend

const legendOf = () => shown.labels.legend;

function showLegend() {
  const total = legendOf().reduce((sum, { points }) => sum + points, 0) || 1;
  const lines = legendOf().filter(({ points }) => points > 0).sort((a, b) => (b.label >= 0) - (a.label >= 0) || b.points - a.points);
  $("legend").replaceChildren(
    ...lines.map(({ label, name, known, color, points }) => {
      const isOff = state.hidden.has(label);
      const share = (100 * points) / total;
      return make("li", { className: `${isOff ? "off " : ""}${known ? "" : "unknown"}` },
        make("i", { className: "swatch", color: css(color) }),
        make("button", { type: "button", className: "name", textContent: name, title: label < 0 ? name : `Find ${name}`, onclick: () => { if (label >= 0) { $("words").value = name; ask(name); } } }),
        make("span", { className: "share", textContent: share < 0.05 ? "<0.1 %" : `${share.toFixed(1)} %` }),
        make("button", { type: "button", className: "eye", title: isOff ? `Show ${name}` : `Hide ${name}`, ariaPressed: String(!isOff), onclick: (event) => toggleLabel(label, event.altKey) }, icon(isOff ? "eye-off" : "eye")),
      );
    }),
  );
  $("all").textContent = state.hidden.size ? "show all" : "hide all";
  cloud.setLegend(legendOf(), (label) => state.hidden.has(label));
  stage.draw();
}

function toggleLabel(label, alone) {
  if (alone) state.hidden = new Set(legendOf().map((line) => line.label).filter((other) => other !== label));
  else if (!state.hidden.delete(label)) state.hidden.add(label);
  showLegend();
  saveState();
}

function toggleAll() {
  state.hidden = state.hidden.size ? new Set() : new Set(legendOf().map(({ label }) => label));
  showLegend();
  saveState();
}

// ---------------------------------------------------------------- objects

function colorOf(object) {
  const line = object.label >= 0 && state.mode !== "objects" && legendOf().find(({ label }) => label === object.label);
  return line ? line.color : objectColor(object.index);
}

const unit = () => (scan.unit ? ` ${scan.unit}` : "");
const sizes = ({ low, high }) => low.map((x, i) => (high[i] - x).toFixed(2)).join(" × ") + unit();
const objectsOf = () => shown.reply.objects;

function showObjects() {
  const all = objectsOf();
  const isAnswer = shown.reply.kind === "answer";
  $("objects-title").textContent = isAnswer ? (all.length === 1 ? "1 place" : `${grouped(all.length)} places`) : `${grouped(all.length)} objects`;
  const items = all.slice(0, MOST_LISTED).map((object) =>
    make("li", {
      tabIndex: 0, className: object.index === state.selected ? "selected" : "",
      onclick: () => select(object.index, { move: true }),
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(object.index, { move: true }); } },
      onpointerenter: () => hover(object.index), onpointerleave: () => hover(0),
    },
    make("i", { className: "swatch", color: css(colorOf(object)) }),
    make("div", { className: "what" }, make("b", { textContent: isAnswer ? `${object.name} ${object.index}` : object.name }), make("span", { textContent: sizes(object) })),
    make("span", { className: "score", textContent: (isAnswer ? object.best : object.mean)?.toFixed(2) ?? "", title: isAnswer ? "best cosine" : "mean cosine" })));
  if (!items.length) items.push(make("li", { className: "none", textContent: "none" }));
  if (all.length > MOST_LISTED) items.push(make("li", { className: "none", textContent: `and ${grouped(all.length - MOST_LISTED)} smaller ones` }));
  $("objects").replaceChildren(...items);
  showBoxes();
}

function showBoxes() {
  const all = objectsOf();
  const isAnswer = shown.reply.kind === "answer";
  $("boxes").textContent = state.boxes ? "hide boxes" : "show boxes";
  const many = state.boxes ? all.slice(0, MOST_LISTED) : isAnswer ? all.slice(0, 5) : [];
  stage.setBoxes(stage.manyBoxes, many.map((object) => ({ box: object.box, color: colorOf(object) })));
  const one = all.find(({ index }) => index === (state.hovered || state.selected));
  const white = state.theme === "dark" ? [255, 255, 255] : [20, 30, 40];
  stage.setBoxes(stage.oneBox, one ? [{ box: one.box, color: white }] : []);
}

function select(index, { move }) {
  state.selected = index;
  cloud.uniforms.selected.value = index;
  [...$("objects").children].forEach((item, i) => item.classList.toggle("selected", i + 1 === index));
  const object = objectsOf()[index - 1];
  if (object) {
    if (move) stage.lookAt(object.box);
    $("objects").children[index - 1]?.scrollIntoView({ block: "nearest" });
  }
  canvas.dataset.selected = String(index);
  showBoxes();
  saveState();
}

function hover(index) {
  if (state.hovered === index) return;
  state.hovered = index;
  cloud.uniforms.hovered.value = index;
  [...$("objects").children].forEach((item, i) => item.classList.toggle("over", i + 1 === index));
  showBoxes();
}

// ---------------------------------------------------------------- colours

function setMode(mode) {
  const isOpen = { swipe: scan.has_lifted, heat: shown.reply.kind === "answer" };
  if (isOpen[mode] === false) mode = "labels";
  state.mode = mode;
  cloud.uniforms.mode.value = MODES.findIndex(([name]) => name === mode);
  for (const button of $("modes").children) {
    button.setAttribute("aria-checked", button.dataset.mode === mode);
    button.disabled = isOpen[button.dataset.mode] === false;
  }
  $("swipe").hidden = mode !== "swipe";
  $("scale").hidden = !TITLES[mode];
  if (TITLES[mode]) {
    const range = mode === "heat" ? shown.reply.heat_range : mode === "score" ? (shown.labels.score_range ?? scan.score_range) : (shown.labels.margin_range ?? scan.margin_range);
    const stops = Array.from({ length: 12 }, (_, i) => css(heat(i / 11)));
    $("scale").querySelector(".bar").style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    $("scale-low").textContent = range[0].toFixed(2);
    $("scale-title").textContent = TITLES[mode];
    $("scale-high").textContent = range[1].toFixed(2);
  }
  for (const [i, object] of objectsOf().slice(0, MOST_LISTED).entries()) {
    const swatch = $("objects").children[i]?.querySelector(".swatch");
    if (swatch) swatch.style.background = css(colorOf(object));
  }
  stage.draw();
  saveState();
}

function setSplit(share) {
  state.split = Math.max(0.02, Math.min(0.98, share));
  cloud.uniforms.split.value = state.split;
  $("swipe").style.left = `${state.split * 100}%`;
  stage.draw();
}

function setSize(size) {
  state.size = Math.max(-2, Math.min(2, size));
  $("size-range").value = state.size;
  cloud.uniforms.scale.value = 2 ** state.size;
  stage.draw();
  saveState();
}

// ---------------------------------------------------------------- clip box

function setClip() {
  const [low, high] = scan.bounds;
  const at = (axis, share) => low[axis] + (high[axis] - low[axis]) * share;
  const slack = (axis) => 1e-4 * (high[axis] - low[axis]) + 1e-6;
  const { clipLow, clipHigh } = cloud.uniforms;
  clipLow.value.fromArray(state.clip.map(([from], axis) => at(axis, from) - slack(axis)));
  clipHigh.value.fromArray(state.clip.map(([, to], axis) => at(axis, to) + slack(axis)));
  stage.draw();
  saveState();
}

function makeClip() {
  const rows = ["x", "y", "z"].flatMap((name, axis) => [0, 1].map((end) => {
    const input = make("input", { type: "range", min: 0, max: 1, step: 0.002, value: state.clip[axis][end], ariaLabel: `${name} ${end ? "to" : "from"}` });
    input.oninput = () => {
      const pair = state.clip[axis];
      pair[end] = end ? Math.max(Number(input.value), pair[0] + 0.002) : Math.min(Number(input.value), pair[1] - 0.002);
      input.value = pair[end];
      setClip();
    };
    return make("label", {}, make("span", { textContent: end ? "" : name }), input);
  }));
  $("clip-axes").replaceChildren(...rows);
}

// ---------------------------------------------------------------- measure

function drawMeasure() {
  const points = state.measured;
  const marks = points.map((p) => stage.project(p));
  const children = marks.filter(Boolean).map(({ x, y }) => svg("circle", { cx: x, cy: y, r: 5 }));
  const tags = [];
  if (points.length === 2 && marks[0] && marks[1]) {
    const delta = points[1].clone().sub(points[0]);
    const height = delta.dot(stage.up);
    const corner = points[0].clone().addScaledVector(stage.up, height);
    const bend = stage.project(corner);
    const line = (a, b, className) => svg("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: className });
    if (bend) children.unshift(line(marks[0], bend, "height"), line(bend, marks[1], "height"));
    children.unshift(line(marks[0], marks[1], ""));
    const flat = Math.sqrt(Math.max(0, delta.lengthSq() - height * height));
    const long = (x) => `${x.toFixed(3)}${unit()}`;
    $("measure-text").textContent = `Distance ${long(delta.length())}\nHeight ${long(Math.abs(height))}\nAcross ${long(flat)}`;
    tags.push({ x: (marks[0].x + marks[1].x) / 2, y: (marks[0].y + marks[1].y) / 2, text: long(delta.length()) });
  } else {
    $("measure-text").textContent = points.length ? "Click the second point." : "Click two points.";
  }
  $("lines").replaceChildren(...children);
  return tags;
}

function setMeasuring(on) {
  state.measuring = on;
  canvas.classList.toggle("measuring", on);
  toggleSheet("measured", "t-measure", on);
  if (!on) state.measured = [];
  stage.draw();
}

// ---------------------------------------------------------------- tags and status

function drawTags() {
  const tags = drawMeasure();
  const object = objectsOf().find(({ index }) => index === (state.hovered || state.selected));
  if (object) {
    const top = object.box.getCenter(new Vector3());
    top.addScaledVector(stage.up, object.box.getSize(new Vector3()).dot(new Vector3(...stage.up.toArray().map(Math.abs))) / 2);
    const at = stage.project(top);
    if (at) tags.push({ x: at.x, y: at.y - 18, text: object.name, more: sizes(object) });
  }
  $("tags").replaceChildren(...tags.map(({ x, y, text, more }) => {
    const tag = make("div", { className: "tag", textContent: text });
    if (more) tag.append(make("small", { textContent: more }));
    tag.style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`;
    return tag;
  }));
}

function drawStatus() {
  canvas.dataset.points = String(cloud.drawn);
  canvas.dataset.complete = String(Boolean(cloud.complete));
  const percent = cloud.complete ? "" : " · loading";
  $("status").textContent = `${short(cloud.drawn)} of ${short(scan.points)} points drawn${percent}`;
  if (cloud.failed) {
    toast(cloud.failed.message);
    cloud.failed = null;
  }
}

// ---------------------------------------------------------------- state in the URL

let saving;
function saveState() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    if (!stage) return;
    const round = (v) => v.toArray().map((x) => Number(x.toFixed(3))).join(",");
    const values = new URLSearchParams();
    if (source.scan !== undefined) values.set("scan", source.scan);
    values.set("colour", state.mode);
    values.set("eye", round(stage.camera.position));
    values.set("at", round(stage.controls.target));
    if (state.size) values.set("size", state.size.toFixed(1));
    if (state.hidden.size) values.set("hide", [...state.hidden].join(","));
    if (state.clip.flat().join() !== "0,1,0,1,0,1") values.set("clip", state.clip.flat().map((x) => Number(x.toFixed(3))).join(","));
    const words = wordsOf(shown.reply);
    if (words) values.set("words", words);
    if (shown.reply.kind === "answer" && shown.labels.kind === "labels") values.set("labels", shown.labels.words.join(","));
    if (state.selected) values.set("object", state.selected);
    if (state.theme === "light") values.set("theme", "light");
    history.replaceState(null, "", `#${values}`);
  }, 200);
}

function numbers(text, count) {
  const list = (text ?? "").split(",").map(Number);
  return list.length === count && list.every(Number.isFinite) ? list : null;
}

async function restore(values) {
  const [eye, at, clip] = [numbers(values.get("eye"), 3), numbers(values.get("at"), 3), numbers(values.get("clip"), 6)];
  const mode = values.get("colour");
  const object = Number(values.get("object")) || 0;
  state.hidden = new Set((values.get("hide") ?? "").split(",").filter(Boolean).map(Number));
  if (clip) state.clip = [0, 1, 2].map((axis) => [clip[axis * 2], clip[axis * 2 + 1]]);
  if (values.get("size")) setSize(Number(values.get("size")) || 0);
  const hidden = new Set(state.hidden);
  for (const words of [values.get("labels"), values.get("words")]) {
    if (!words) continue;
    $("words").value = words.slice(0, 4000);
    await ask($("words").value);
  }
  state.hidden = hidden;
  showLegend();
  if (MODES.some(([name]) => name === mode)) setMode(mode);
  if (object > 0 && object <= objectsOf().length) select(object, {});
  if (eye && at) stage.goTo(new Vector3(...eye), new Vector3(...at), true);
}

// ---------------------------------------------------------------- input

const canvas = $("canvas");

function toggleSheet(id, button, on = $(id).hidden) {
  for (const [sheet, tool] of [["clip", "t-clip"], ["size", "t-size"], ["measured", "t-measure"]]) {
    if (sheet !== id && on && !$(sheet).hidden) {
      if (sheet === "measured") setMeasuring(false);
      else { $(sheet).hidden = true; $(tool).setAttribute("aria-pressed", "false"); }
    }
  }
  $(id).hidden = !on;
  $(button).setAttribute("aria-pressed", String(on));
}

function clicked(x, y, twice) {
  const point = cloud.point(stage.pick(x, y));
  if (state.measuring) {
    if (!point) return;
    if (state.measured.length === 2) state.measured = [];
    state.measured.push(point.position);
    stage.draw();
  } else if (twice && point) {
    const offset = stage.camera.position.clone().sub(stage.controls.target);
    stage.goTo(point.position.clone().addScaledVector(offset, 0.5), point.position);
  } else if (!twice) {
    const index = point?.object ?? 0;
    select(index === state.selected ? 0 : index, { move: index > 0 });
  }
}

async function savePage() {
  if (!source.answersAll) return toast("This page is such a file already.");
  toast("The page is being written …");
  try {
    const questions = asked.map(({ question }) => question).reverse();
    download(await source.page(questions), `${scan.name || "scan"}.html`);
    toast("The page with these answers is saved. It opens without the program.");
  } catch (error) {
    toast(error.message);
  }
}

async function savePicture() {
  download(await stage.picture(), `${scan.name || "scan"}.png`);
}

const KEYS = [
  ["/", "Words: one finds things, several are new labels"], ["Ctrl + Z", "Undo"], ["1 … 7", "Colours"], ["F", "Show all, or the chosen object"],
  ["W A S D, Q E", "Fly; with Shift faster"], ["[ ]", "Previous or next object"], ["B", "Boxes"], ["M", "Measure distance and height"],
  ["C", "Cut the scan open"], ["+ −", "Point size"], ["L", "Labels and objects"], ["P", "Save a picture"], ["Ctrl + S", "Save the page as one file"], ["T", "Dark or light"],
  ["Esc", "Leave the tool, the object, the words"], ["Drag, right drag, wheel", "Turn, shift, zoom"], ["Click, double click", "Choose an object, go there"],
  ["One, two fingers", "Turn; shift and zoom"],
];

function fit() {
  const object = objectsOf()[state.selected - 1];
  if (object) stage.lookAt(object.box);
  else stage.showAll();
}

function toggleTheme() {
  setTheme(state.theme === "dark" ? "light" : "dark");
  storage.set(state.theme);
  showBoxes();
  saveState();
}

function escape() {
  if (state.measuring) setMeasuring(false);
  else if (!$("clip").hidden) toggleSheet("clip", "t-clip", false);
  else if (!$("size").hidden) toggleSheet("size", "t-size", false);
  else if (state.selected) select(0, {});
}

const commands = {
  "/": () => $("words").focus(), f: fit, m: () => setMeasuring(!state.measuring), c: () => toggleSheet("clip", "t-clip"),
  b: () => { state.boxes = !state.boxes; showBoxes(); }, p: savePicture, t: toggleTheme, l: () => document.body.classList.toggle("lists"),
  "+": () => setSize(state.size + 0.2), "=": () => setSize(state.size + 0.2), "-": () => setSize(state.size - 0.2),
  "?": () => $("help").showModal(), Escape: escape,
  "[": () => step(-1), "]": () => step(1),
};

function step(by) {
  const count = objectsOf().length;
  if (count) select(((state.selected - 1 + by + count + (state.selected ? 0 : by < 0 ? 1 : 0)) % count) + 1, { move: true });
}

function listen() {
  $("words").addEventListener("input", typed);
  $("words").addEventListener("keydown", (event) => { if (event.key === "Escape") canvas.focus(); });
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  $("undo").onclick = undo;
  $("all").onclick = toggleAll;
  $("boxes").onclick = commands.b;
  $("t-lists").onclick = commands.l;
  $("t-fit").onclick = () => stage.showAll();
  $("t-measure").onclick = commands.m;
  $("t-clip").onclick = commands.c;
  $("t-size").onclick = () => toggleSheet("size", "t-size");
  $("t-photo").onclick = savePicture;
  $("t-save").onclick = savePage;
  $("t-theme").onclick = toggleTheme;
  $("t-help").onclick = commands["?"];
  $("clip-reset").onclick = () => { state.clip = [[0, 1], [0, 1], [0, 1]]; makeClip(); setClip(); };
  $("measure-clear").onclick = () => { state.measured = []; stage.draw(); };
  $("size-range").oninput = () => setSize(Number($("size-range").value));
  $("help").querySelector(".keys").append(...KEYS.flatMap(([key, what]) => [make("kbd", { textContent: key }), make("span", { textContent: what })]));

  addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.("input:not([type=range])") || $("help").open;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ((event.ctrlKey || event.metaKey) && key === "z" && !isTyping) { event.preventDefault(); return undo(); }
    if ((event.ctrlKey || event.metaKey) && key === "s") { event.preventDefault(); return savePage(); }
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (key === "Shift") stage.keys.add("shift");
    if ("wasdqe".includes(key)) { stage.keys.add(key); stage.flight = null; stage.draw(); return; }
    if (key >= "1" && key <= String(MODES.length)) return setMode(MODES[Number(key) - 1][0]);
    if (commands[key]) { event.preventDefault(); commands[key](); }
  });
  addEventListener("keyup", (event) => {
    stage.keys.delete(event.key === "Shift" ? "shift" : event.key.toLowerCase());
  });
  addEventListener("blur", () => stage.keys.clear());

  let down = null;
  let last = 0;
  canvas.addEventListener("pointerdown", (event) => { down = { x: event.clientX, y: event.clientY, fingers: down ? 2 : 1 }; canvas.focus({ preventScroll: true }); });
  canvas.addEventListener("pointerup", (event) => {
    const moved = down ? Math.hypot(event.clientX - down.x, event.clientY - down.y) : 99;
    const isClick = moved < 5 && down.fingers === 1 && event.button === 0;
    down = null;
    if (!isClick) return;
    const twice = event.timeStamp - last < 320;
    last = twice ? 0 : event.timeStamp;
    clicked(event.offsetX, event.offsetY, twice);
  });
  canvas.addEventListener("pointercancel", () => { down = null; });
  let resting;
  canvas.addEventListener("pointermove", (event) => {
    clearTimeout(resting);
    if (down || event.pointerType === "touch" || state.measuring) return;
    const { offsetX, offsetY } = event;
    resting = setTimeout(() => {
      const object = cloud.point(stage.pick(offsetX, offsetY))?.object ?? 0;
      canvas.classList.toggle("over", object > 0);
      hover(object);
    }, 90);
  });
  canvas.addEventListener("pointerleave", () => { clearTimeout(resting); hover(0); });

  const swipe = $("swipe");
  swipe.addEventListener("pointerdown", (event) => { swipe.setPointerCapture(event.pointerId); event.preventDefault(); });
  swipe.addEventListener("pointermove", (event) => { if (swipe.hasPointerCapture(event.pointerId)) setSplit(event.clientX / innerWidth); });
}

// ---------------------------------------------------------------- start

async function startPage(scans) {
  document.title = "Labelled scans – geopurify";
  $("start").hidden = false;
  $("scans").append(...scans.map((one, index) => {
    const text = make("div", { className: "text" }, make("b", { textContent: one.name, title: one.name }));
    if (one.error) {
      text.append(make("p", { className: "wrong", textContent: one.error }));
      return make("div", { className: "card" }, text);
    }
    text.append(make("p", { textContent: `${grouped(one.points)} points · ${one.labels.slice(0, 12).join(", ")}` }));
    const picture = make("img", { alt: "", loading: "lazy", src: source.sheet(index) });
    picture.onerror = () => picture.remove();
    return make("a", { className: "card", href: `${location.search}#scan=${index}` }, make("div", { className: "picture" }, picture), text);
  }));
}

function supported() {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
}

async function start() {
  const theme = storage.get() ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  const values = new URLSearchParams(location.hash.slice(1));
  setTheme(["light", "dark"].includes(values.get("theme")) ? values.get("theme") : theme);
  if (!supported()) return stop("This browser shows no 3D graphics: WebGL 2 is missing or switched off. Another browser, or hardware acceleration in this one's settings, will help.");
  const scans = await source.list();
  if (scans.length !== 1 && !values.has("scan")) return startPage(scans);
  const index = Number(values.get("scan") ?? 0);
  scan = await source.open(index);
  if (!scan.points) return stop("This scan has no points.");
  document.title = `${scan.name} – geopurify`;
  $("view").hidden = false;
  $("name").textContent = $("name").title = scan.name;
  $("count").textContent = scan.points === scan.all_points ? `${grouped(scan.points)} points` : `${grouped(scan.points)} of ${grouped(scan.all_points)} points`;
  $("home").hidden = scans.length < 2;
  $("home").onclick = () => { location.hash = ""; };
  $("t-save").hidden = !source.answersAll;
  cloud = new Cloud(scan, source, () => stage?.draw());
  cloud.setLegend(scan.legend, (label) => state.hidden.has(label));
  $("modes").append(...MODES.map(([mode, name]) => {
    const button = make("button", { type: "button", role: "radio", textContent: name, onclick: () => setMode(mode) });
    button.dataset.mode = mode;
    return button;
  }));
  initial = { kind: "objects", objects: [], asked: null, named: null, legend: scan.legend };
  shown = { reply: initial, labels: initial };
  stage = new Stage(canvas, cloud);
  stage.after.push(drawTags, drawStatus);
  stage.moved = saveState;
  setTheme(state.theme);
  makeClip();
  listen();
  setSplit(0.5);
  show(shown);
  const objects = unpack(await source.objects());
  Object.assign(initial, { objects: objects.objects, asked: objects.asked });
  show(shown, { keepMode: true });
  if (source.replies) {
    for (const words of source.asked()) asked.push({ text: words });
    showAsked();
    $("words").placeholder = asked.length ? "Words whose answers this file holds" : "This file holds no answers";
  }
  await restore(values);
  makeClip();
  setClip();
  canvas.dataset.ready = "true";
}

addEventListener("hashchange", () => location.reload());
start().catch((error) => stop(error.message === "no WebGL" ? "This browser shows no 3D graphics: WebGL 2 is missing or switched off." : error.message));
