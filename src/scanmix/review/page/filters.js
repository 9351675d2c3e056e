"use strict";
// The filters: which rows are listed, and the address of the page, which keeps filters and place.

function fillFilters() {
  const options = (names, words) => [element("option", { value: "", textContent: "any" }),
    ...names.map((name, place) => element("option", { value: name, textContent: words[place] }))];
  for (const id of ["f-given", "f-suggested"]) $(id).append(...options(table.classes, table.classes));
  $("f-kind").append(...options(table.kinds, table.kind_words));
}

const FIELDS = { given: "f-given", suggested: "f-suggested", kind: "f-kind", low: "f-low", high: "f-high" };
const hasFilter = () => $("f-undecided").checked || Object.values(FIELDS).some((id) => $(id).value !== "");

// The list does not change while decisions are made, so that going back and undo find the same rows.
function applyFilters(row) {
  const place = (names, id) => ($(id).value === "" ? -1 : names.indexOf($(id).value));
  const [given, suggested] = [place(table.classes, "f-given"), place(table.classes, "f-suggested")];
  const kind = place(table.kinds, "f-kind");
  const [low, high] = [Number($("f-low").value || 0), Number($("f-high").value || 1)];
  shown = table.order.filter((each) => (given < 0 || table.given[each] === given)
    && (suggested < 0 || table.suggested[each] === suggested)
    && (kind < 0 || table.kind[each] === kind)
    && table.score[each] >= low && table.score[each] <= high
    && (!$("f-undecided").checked || isOpen(each)));
  const wanted = shown.indexOf(row);
  at = wanted < 0 ? Math.max(0, shown.findIndex(isOpen)) : wanted;
  setView(view);
}

// Delayed, since browsers limit how often the address may change.
let hashTimer = 0;
function writeHash() {
  clearTimeout(hashTimer);
  hashTimer = setTimeout(writeHashNow, 150);
}

function writeHashNow() {
  const parts = new URLSearchParams();
  if (view === "grid") parts.set("view", "grid");
  for (const [name, id] of Object.entries(FIELDS)) if ($(id).value !== "") parts.set(name, $(id).value);
  if ($("f-undecided").checked) parts.set("undecided", "1");
  if (shown.length) parts.set("id", table.id[shown[at]]);
  history.replaceState(null, "", `#${parts}`);
}

function readHash() {
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const [name, id] of Object.entries(FIELDS)) $(id).value = parts.get(name) ?? "";
  $("f-undecided").checked = parts.has("undecided");
  view = parts.get("view") === "grid" ? "grid" : "one";
  const row = parts.has("id") ? table.id.indexOf(parts.get("id")) : -1;
  applyFilters(row);
}
