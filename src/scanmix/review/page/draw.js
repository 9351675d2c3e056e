"use strict";
// Small parts of the page, built from elements and text, so that names of files and classes are never read as HTML.

const $ = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A name with control characters, and those that change the direction of text, written as escapes.
const visible = (text) => text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
  (sign) => (sign < "\u0100" ? `\\x${sign.charCodeAt(0).toString(16).padStart(2, "0")}` : `\\u${sign.charCodeAt(0).toString(16)}`));

const percent = (share) => `${(100 * share).toFixed(share > 0.995 || share < 0.095 ? 1 : 0)} %`;

function setImage(image, address, alt) {
  image.alt = alt;
  if (image.getAttribute("src") !== address) image.src = address;
}

function drawSVG(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The loss of one label in each network over the epochs. Networks differ in dashes as well as in color.
function drawLosses(epochs, losses) {
  if (!losses.length) return element("p", { className: "quiet", textContent: "This run kept no losses." });
  const [width, height, left, bottom] = [340, 118, 34, 20];
  const highest = Math.max(...losses.flat(), 0.1);
  const [first, last] = [epochs[0], epochs[epochs.length - 1]];
  const x = (epoch) => left + (last > first ? (epoch - first) / (last - first) : 0.5) * (width - left - 26);
  const y = (loss) => 8 + (1 - loss / highest) * (height - bottom - 8);
  const text = (at, down, anchor, words) => drawSVG("text", { x: at, y: down, "text-anchor": anchor }, words);
  const chart = drawSVG("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", class: "losses",
    "aria-label": losses.map((line, place) => `network ${letter(place)}: loss ${line[0]} after epoch ${first}, ` +
      `${line[line.length - 1]} after epoch ${last}`).join("; "),
  });
  const digits = highest < 1 ? 2 : 1;  // no two levels of one number
  for (const level of [0, highest / 2, highest]) {
    chart.append(drawSVG("line", { x1: left, x2: width - 24, y1: y(level), y2: y(level), class: "rule" }),
      text(left - 5, y(level) + 4, "end", level.toFixed(digits)));
  }
  chart.append(text(left, height - 4, "start", `epoch ${first}`), text(width - 24, height - 4, "end", `${last}`));
  losses.forEach((line, place) => {
    const points = line.map((loss, at) => `${x(epochs[at]).toFixed(1)},${y(loss).toFixed(1)}`);
    chart.append(drawSVG("polyline", { points: points.join(" "), class: `network network-${place % 4}` }));
  });
  // Letters at the ends of the lines, moved down where they would overlap.
  const ends = losses.map((line, place) => [y(line[line.length - 1]) + 4, place]).sort(([one], [other]) => one - other);
  let lowest = -Infinity;
  for (const [end, place] of ends) {
    lowest = Math.max(end, lowest + 12);
    chart.append(text(width - 20, lowest, "start", letter(place)));
  }
  return chart;
}

const letter = (place) => String.fromCharCode(97 + place);

// A list of classes to choose from. `classes` holds pairs [class, share or null]. Returns the classes that are shown.
function drawClasses(list, classes, names, wanted, marks, choose) {
  const words = wanted.trim().toLowerCase();
  const found = classes.filter(([label]) => names[label].toLowerCase().includes(words));
  list.replaceChildren(...found.slice(0, 200).map(([label, share], place) => {
    const row = element("button", { type: "button", tabIndex: place < 9 ? 0 : -1 },
      element("kbd", { textContent: place < 9 ? place + 1 : "" }),
      element("span", { className: "name", textContent: names[label] }),
      element("span", { className: "mark", textContent: marks[label] ?? "" }),
      element("span", { className: "share", textContent: share === null ? "" : percent(share) }));
    if (share !== null) row.style.setProperty("--share", `${100 * share}%`);
    row.onclick = () => choose(label);
    return element("li", {}, row);
  }));
  return found.map(([label]) => label);
}
