"use strict";
// The page itself: decisions, the view of one row, the grid of rows, and what the keys do.

const POLL = 1000; // milliseconds between requests for decisions of other tabs
const AHEAD = 4; // rows fetched ahead of the one shown

let table, codes, labels, shown = [], at = 0, revision = 0, view = "one";
let listed = []; // classes in the order of the keys 1-9
let grid;
const pending = new Map(); // row -> choice that the server has not answered yet: { code, label }

start().catch((error) => showProblem(error.message));

async function start() {
  table = await source.table();
  table.classes = table.classes.map(visible);
  codes = new Array(table.id.length).fill(0);
  labels = table.given.slice();
  $("title").textContent = document.title = `Review of ${visible(table.title)}`;
  document.body.classList.toggle("read-only", source.readOnly);
  if (source.readOnly) showProblem(`A read-only copy: the ${table.order.length} most doubtful labels.`);
  fillFilters();
  grid = makeGrid({ scroller: $("scroller"), sheet: $("sheet"), fill: fillCell, onPick: picked });
  applyState(await source.state(0));
  drawPairs();
  listen();
  readHash();
  if (!source.readOnly) setInterval(poll, POLL);
}

// Whether a row is still to be decided. Decisions of an earlier round hold unless the review was started with --again.
const isOpen = (row) => codes[row] === 0 && !pending.has(row) && (table.again || !table.before[row]);

// ---- decisions ------------------------------------------------------------------------------------------

// The state of a row: the choice that was sent last, until the server answers which decision it is.
const stateOf = (row) => pending.get(row) ?? { code: codes[row], label: labels[row] };
const classOf = (row) => table.choices[stateOf(row).code || table.before[row]] || "undecided";

// Apply the state that the server sends. Only the server knows which decision a chosen class means.
function applyState(state) {
  revision = state.revision;
  for (const [row, code, label] of state.rows) [codes[row], labels[row]] = [code, label];
  drawProgress(state.progress);
  if (shown.length) redraw();
}

let polling = false;
async function poll() {
  if (polling || source.waiting() || document.hidden) return;
  polling = true;
  try {
    const state = await source.state(revision);
    if (!source.waiting() && state.revision >= revision) {
      if (state.revision > revision) applyState(state);
      hideProblem();
    }
  } catch (error) {
    showProblem(error.refused ? error.message : unanswered(0));
  } finally {
    polling = false;
  }
}

const unanswered = (count) => "The server does not answer. " + (count
  ? `${count} decision${count > 1 ? "s" : ""} not saved yet; keep this page open and start scanmix review again.`
  : "What was decided is saved.");

async function decide(choice, label = null) {
  if (source.readOnly) return say("This is a read-only copy.");
  const rows = view === "grid" ? grid.chosen() : shown.slice(at, at + 1);
  if (!rows.length) return;
  const request = { code: table.choices.indexOf(choice), label };
  for (const row of rows) pending.set(row, request);
  say(rows.length > 1 ? `${rows.length} labels: ${words(rows[0])}` : words(rows[0]));
  const sent = deliver("api/decisions", () => ({ rows, choice, label, since: revision }), request);
  if (view === "grid") grid.advance(); else next();
  if (await sent && rows.length === 1 && !source.waiting()) say(words(rows[0]));
}

async function undo() {
  if (source.readOnly) return say("This is a read-only copy.");
  const answer = await deliver("api/undo", () => ({ since: revision }));
  if (!answer) return;
  if (answer.done === null) return say("There is nothing to undo.");
  say("Undone.");
  if (view === "one" && answer.rows.length) goTo(answer.done);
}

async function deliver(path, body, request = null) {
  try {
    const answer = await source.send(path, body, (count) => showProblem(unanswered(count)));
    if (!source.waiting()) { // the answer to the last request tells of all
      settle(request);
      applyState(answer);
    }
    hideProblem();
    return answer;
  } catch (error) {
    showProblem(error.saved ? error.message : `Not saved: ${error.message}`, true);
    settle(request);
    applyState(await source.state(revision));
  }
}

// A request is answered. While others wait, their rows stay pending.
function settle(request) {
  for (const [row, each] of pending) if (each === request || !source.waiting()) pending.delete(row);
}

function words(row) {
  const { code, label } = stateOf(row);
  const text = code || !table.before[row] ? table.choice_words[code] : table.before_words[table.before[row]];
  return text.replace("{label}", () => table.classes[label]);
}

// ---- one by one ---------------------------------------------------------------------------------------------

function next() {
  const undecided = shown.findIndex((row, place) => place > at && isOpen(row));
  const settled = !table.again && table.before[shown[at + 1]]; // never moved to, even if nothing else is left
  showAt(undecided >= 0 ? undecided : settled ? at : Math.min(at + 1, shown.length - 1));
}

function goTo(row) {
  let place = shown.indexOf(row);
  if (place < 0) { // filtered out: put in front of the shown rows
    shown = [row, ...shown];
    place = 0;
  }
  showAt(place);
}

function showAt(place) {
  at = Math.max(0, Math.min(shown.length - 1, place));
  redraw();
  writeHash();
  for (const row of shown.slice(at + 1, at + 1 + AHEAD)) {
    source.detail(row).catch(() => {});
    if (!source.readOnly) new Image().src = source.image(row, "large");
  }
}

function redraw() {
  if (view === "grid") grid.redraw();
  else drawOne();
  $("place").textContent = shown.length
    ? `${(at + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")} shown${hasFilter() ? " (filtered)" : ""}`
    : "No label fits the filter.";
}

let drawn = -1;
async function drawOne() {
  const row = shown[at];
  $("figure").hidden = $("facts").hidden = row === undefined;
  if (row === undefined) { drawn = -1; return; }
  const [given, suggested] = [table.given[row], table.suggested[row]];
  $("now").textContent = words(row);
  $("now").className = classOf(row);
  if (drawn === row) return;
  drawn = row;
  setImage($("picture"), source.image(row, "large"), `given ${table.classes[given]}, suggested ${table.classes[suggested]}`);
  $("row-id").textContent = visible(table.id[row]);
  $("row-path").textContent = visible(table.path[row]);
  $("given").textContent = table.classes[given];
  $("suggested").textContent = table.classes[suggested];
  $("suggested-share").textContent = percent(table.confidence[row]);
  $("search").value = "";
  const kind = table.kinds[table.kind[row]];
  $("kind").textContent = table.kind_words[table.kind[row]];
  $("kind").className = `kind ${kind}`;
  try {
    const known = await source.detail(row);
    if (drawn === row) drawDetail(row, known);
  } catch (error) {
    if (drawn === row) drawn = -1;
    showProblem(error.refused ? error.message : unanswered(0));
  }
}

function drawDetail(row, known) {
  const given = table.given[row];
  const share = known.classes.find(([label]) => label === given)[1];
  $("given-share").textContent = percent(share);
  $("reason").textContent = visible(known.reason);
  $("votes").textContent = known.votes ? `Votes: ${visible(known.votes)}.` : "";
  $("votes").hidden = !known.votes;
  const networks = Math.max(known.losses.length, known.against.length);
  $("against").textContent = (known.against.length
    ? `Against the given label: ${known.against.join(" and ")} of ${networks} network${networks > 1 ? "s" : ""}. `
    : "No network is against the given label. ")
    + `Chance that it is right: ${percent(known.p_clean)}. ${known.origin}`;
  $("neighbors").replaceChildren(...known.neighbors.map((near) => neighbor(near, given)));
  $("losses").replaceChildren(drawLosses(known.epochs, known.losses));
  drawChoices(row, known.classes);
}

function neighbor(row, given) {
  const name = table.classes[table.given[row]];
  const button = element("button", { type: "button", title: visible(table.id[row]) }, element("img", {}),
    element("span", { textContent: name }));
  button.classList.toggle("same", table.given[row] === given);
  button.setAttribute("aria-label", `neighbor with given label ${name}`);
  setImage(button.firstChild, source.image(row, "small"), "");
  button.onclick = () => { if (!source.readOnly || row < table.order.length) goTo(row); };
  return element("li", {}, button);
}

function drawChoices(row, classes) {
  const marks = { [table.suggested[row]]: "suggested", [table.given[row]]: "given" };
  const draw = () => {
    listed = drawClasses($("classes"), classes, table.classes, $("search").value, marks, (label) => decide("relabel", label));
  };
  $("search").oninput = draw;
  draw();
}

// ---- grid -----------------------------------------------------------------------------------------------------

function fillCell(cell, row) {
  const [given, suggested] = [table.classes[table.given[row]], table.classes[table.suggested[row]]];
  const names = given === suggested ? `${given} (no other)` : `${given} → ${suggested}`;
  const decided = stateOf(row).code || table.before[row] ? words(row) : "";
  cell.children[1].textContent = names;
  cell.children[2].textContent = decided;
  cell.children[1].title = names;
  cell.children[2].className = `badge ${classOf(row)}`;
  cell.setAttribute("aria-label", `given ${given}, suggested ${suggested}, ${decided || "undecided"}`);
}

function picked(row, open) {
  if (row === undefined) return;
  at = Math.max(0, shown.indexOf(row));
  if (open) return setView("one");
  const count = grid ? grid.selectedCount() : 0;
  $("grid-note").textContent = (count ? `${count.toLocaleString("en")} selected: one key decides for all of them. ` : "")
    + `${shown.length.toLocaleString("en")} images, ${table.order_words}. Click, Shift-click or Ctrl-A to select, double click to look closer.`;
  $("place").textContent = `${(at + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")} shown`;
  writeHash();
}

function drawPalette() {
  const all = table.classes.map((_, label) => [label, null]);
  const draw = () => {
    listed = drawClasses($("palette-classes"), all, table.classes, $("palette-search").value, {}, (label) => decide("relabel", label));
  };
  $("palette-search").oninput = draw;
  draw();
}

function setView(wanted) {
  const row = shown[at];
  view = wanted;
  $("one").hidden = view !== "one";
  $("grid").hidden = $("palette").hidden = view !== "grid";
  $("show-one").setAttribute("aria-pressed", view === "one");
  $("show-grid").setAttribute("aria-pressed", view === "grid");
  drawn = -1;
  if (view === "grid") { drawPalette(); grid.show(shown, row); if (!shown.length) redraw(); $("scroller").focus(); } else { document.activeElement?.blur(); showAt(at); }
  writeHash();
}

// ---- keys and clicks ------------------------------------------------------------------------------------------

const KEYS = {
  k: () => decide("keep"), a: () => decide("accept"), x: () => decide("exclude"), u: () => decide("unsure"),
  z: undo, g: () => setView(view === "grid" ? "one" : "grid"), "?": () => $("help").showModal(),
  "/": () => { const box = $(view === "grid" ? "palette-search" : "search"); box.focus(); box.select(); },
  enter: () => decide("accept"),
  arrowright: () => move(1, 0), arrowleft: () => move(-1, 0), arrowdown: () => move(0, 1), arrowup: () => move(0, -1),
  escape: () => { if (view === "grid") grid.selectNone(); },
};

function move(across, down) {
  if (view === "grid") grid.moveBy(across, down); else showAt(at + across + down);
}

function onKey(event) {
  if ($("help").open || event.isComposing || event.altKey) return;
  const key = event.key.toLowerCase();
  const field = event.target.closest("input, select");
  if (field) return fieldKey(event, field);
  if (event.ctrlKey || event.metaKey) {
    if (key === "a" && view === "grid") { event.preventDefault(); grid.selectAll(); }
    if (key === "z") { event.preventDefault(); undo(); }
    return;
  }
  if ((key === "enter" || key === " ") && event.target.closest("button")) return; // the focused button is pressed instead
  if (key === " " && view === "grid") { event.preventDefault(); grid.toggle(); return; }
  const act = KEYS[key];
  if (event.repeat && act && !key.startsWith("arrow")) return; // holding a key down decides once
  if (act) { event.preventDefault(); staysVisible = false; act(); return; }
  if (/^[1-9]$/.test(key) && !event.repeat && listed[key - 1] !== undefined) decide("relabel", listed[key - 1]);
}

function fieldKey(event, field) {
  if (event.key === "Escape") { field.blur(); return; }
  if (event.key !== "Enter" || field.type !== "search") return;
  event.preventDefault();
  const label = listed[0];
  field.value = "";
  field.blur();
  if (label !== undefined) decide("relabel", label);
}

// On a narrow page the filters are folded, as they would take half of it.
const narrow = matchMedia("(max-width: 1000px)");
function foldFilters() { $("fold").open = !narrow.matches; }

function listen() {
  addEventListener("keydown", onKey);
  addEventListener("hashchange", readHash);
  addEventListener("beforeunload", (event) => { if (source.waiting()) event.preventDefault(); });
  $("show-one").onclick = () => setView("one");
  $("show-grid").onclick = () => setView("grid");
  $("help-button").onclick = () => $("help").showModal();
  $("help").onclose = () => document.activeElement?.blur();
  narrow.onchange = foldFilters;
  foldFilters();
  $("filters").onsubmit = (event) => event.preventDefault();
  $("filters").onchange = () => applyFilters(shown[at]);
  $("f-clear").onclick = () => { $("filters").reset(); applyFilters(shown[at]); };
  $("buttons").onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    button.blur();
    const acts = { undo, back: () => move(-1, 0), on: () => move(1, 0) };
    if (button.dataset.action) acts[button.dataset.action](); else decide(button.dataset.choice);
  };
}
