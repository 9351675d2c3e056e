"use strict";
// A sheet of thumbnails. Only visible cells exist in the page, so 50,000 rows scroll as fast as 50.

const CELL = { width: 128, height: 158 };
const SETTLED = 70; // milliseconds without scrolling before images are fetched

function makeGrid({ scroller, sheet, fill, onPick }) {
  let rows = [];
  let [columns, width] = [1, CELL.width];
  let focus = 0;
  let anchor = 0;
  let timer = 0;
  const selected = new Set();
  const cells = new Map();

  function layout() {
    columns = Math.max(1, Math.floor(scroller.clientWidth / CELL.width));
    width = Math.floor(scroller.clientWidth / columns);
    sheet.style.setProperty("--cell", `${width}px`);
    sheet.style.height = `${Math.ceil(rows.length / columns) * CELL.height}px`;
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(scroller.scrollTop / CELL.height) - 1) * columns;
    const last = Math.min(rows.length, (Math.ceil((scroller.scrollTop + scroller.clientHeight) / CELL.height) + 1) * columns);
    for (const [place, cell] of cells) {
      if (place < first || place >= last) { cell.remove(); cells.delete(place); }
    }
    for (let place = first; place < last; place += 1) {
      if (!cells.has(place)) cells.set(place, sheet.appendChild(makeCell(place)));
      refresh(place);
    }
    clearTimeout(timer);
    timer = setTimeout(fetchImages, SETTLED);
  }

  function makeCell(place) {
    const cell = element("div", { className: "cell", id: `cell-${place}` },
      element("img", { alt: "" }), element("span", { className: "names" }), element("span", { className: "badge" }));
    cell.setAttribute("role", "option");
    cell.style.left = `${(place % columns) * width + 3}px`;
    cell.style.top = `${Math.floor(place / columns) * CELL.height + 3}px`;
    cell.onclick = (event) => pick(place, event.shiftKey, event.ctrlKey || event.metaKey);
    cell.ondblclick = () => onPick(rows[place], true);
    return cell;
  }

  function refresh(place) {
    const cell = cells.get(place);
    if (!cell) return;
    fill(cell, rows[place]);
    cell.setAttribute("aria-selected", selected.has(rows[place]));
    cell.setAttribute("aria-posinset", place + 1);
    cell.setAttribute("aria-setsize", rows.length);
    cell.classList.toggle("focus", place === focus);
  }

  function fetchImages() {
    for (const [place, cell] of cells) setImage(cell.firstChild, source.image(rows[place], "small"), "");
  }

  function pick(place, range, more) {
    if (range) {
      const [low, high] = [Math.min(anchor, place), Math.max(anchor, place)];
      if (!more) selected.clear();
      for (let at = low; at <= high; at += 1) selected.add(rows[at]);
    } else if (selected.has(rows[place])) {
      selected.delete(rows[place]);
    } else {
      selected.add(rows[place]);
    }
    if (!range) anchor = place;
    moveTo(place);
  }

  function moveTo(place) {
    if (!rows.length) return;
    focus = Math.max(0, Math.min(rows.length - 1, place));
    const top = Math.floor(focus / columns) * CELL.height;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    const bottom = top + CELL.height - scroller.clientHeight;
    if (bottom > scroller.scrollTop) scroller.scrollTop = bottom;
    draw();
    scroller.setAttribute("aria-activedescendant", `cell-${focus}`);
    onPick(rows[focus], false);
  }

  scroller.addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(() => { if (scroller.clientWidth) { clear(); layout(); } }).observe(scroller);

  function clear() {
    for (const cell of cells.values()) cell.remove();
    cells.clear();
  }

  return {
    show(wanted, row) {
      rows = wanted;
      selected.clear();
      clear();
      layout();
      moveTo(anchor = Math.max(0, rows.indexOf(row)));
    },
    redraw: draw,
    moveBy(across, down) { moveTo(focus + across + down * columns); },
    toggle() { if (rows.length) pick(focus, false, true); },
    selectAll() { rows.forEach((row) => selected.add(row)); draw(); onPick(rows[focus], false); },
    selectNone() { selected.clear(); draw(); onPick(rows[focus], false); },
    chosen() { return selected.size ? rows.filter((row) => selected.has(row)) : rows.slice(focus, focus + 1); },
    selectedCount: () => selected.size,
    // After a decision for one row move to the next; after one for several clear the selection.
    advance() { if (selected.size) { selected.clear(); draw(); } else moveTo(focus + 1); },
  };
}
