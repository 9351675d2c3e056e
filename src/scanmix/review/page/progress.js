"use strict";
// The side of the page: progress, pairs of classes, and what is said about the last decision.

function drawProgress(now) {
  $("bar").value = now.to_decide ? now.decided / now.to_decide : 1;
  const entries = [
    ["Decided", `${now.decided} of ${now.to_decide}`,
      (table.sampled ? `to check, ${table.order_words}` : `to check: labels in doubt for any reason, and ${now.spots} spot checks`)
      + `; ${now.all_decided} of all ${now.labels} labels are decided`],
    ["Precision so far", now.looked ? percent(now.found / now.looked) : "–",
      `${now.found} of ${now.looked} checked labels were wrong: accepted or relabeled`],
    ["Wrong labels left", `≈ ${Math.round(now.expected_left)}`,
      `${Math.round(now.left_low)} to ${Math.round(now.left_high)}, by the audit and your decisions; ${Math.round(now.expected_first)} at the start, ` +
      `when ${now.look_wrong} were more likely wrong than right. ` + (now.more
        ? `About ${now.more} more decisions in random order would narrow it to ± 3 % of the labels`
        : "It is known to ± 3 % of the labels")],
    ["Excluded", now.excluded, `left out of training${now.before_excluded ? `; ${now.before_excluded} more in earlier rounds` : ""}`],
  ];
  if (now.spots) {
    entries.push(["Spot checks", now.spots_seen ? `${now.spots_kept} of ${now.spots_seen} kept` : `0 of ${now.spots} seen`,
      `one in ${now.spot_every} is a label that the audit is sure of, without a mark: it checks the reviewer and the score`]);
  }
  if (now.before) {
    entries.push(["Decided before", now.before,
      `in earlier rounds, and taken as right; the audit still says that ${now.before_doubted} of them are wrong`]);
    entries.push(["Decided the same again", now.again_seen ? `${now.again_same} of ${now.again_seen}` : "–",
      table.again ? "kept when asked once more" : "scanmix review RUN --again asks once more"]);
  }
  $("numbers").replaceChildren(...entries.map(([name, value, note]) => element("div", {},
    element("dt", { textContent: name }),
    element("dd", {}, element("strong", { textContent: value }), element("span", { className: "quiet", textContent: note })))));
}

function drawPairs() {
  const counts = new Map();
  for (const row of table.order) {
    if (table.before[row] || table.given[row] === table.suggested[row] || table.kind[row] === table.fine) continue;
    const pair = `${table.given[row]},${table.suggested[row]}`;
    counts.set(pair, (counts.get(pair) ?? 0) + 1);
  }
  const most = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 8);
  $("pairs").replaceChildren(...most.map(([pair, count]) => {
    const [given, suggested] = pair.split(",").map((label) => table.classes[label]);
    const button = element("button", { type: "button" }, element("span", { textContent: `${given} → ${suggested}` }),
      element("span", { className: "quiet", textContent: count }));
    button.onclick = () => { $("f-given").value = given; $("f-suggested").value = suggested; applyFilters(); };
    return element("li", {}, button);
  }));
}

function say(sentence) { $("said").textContent = sentence; }

let staysVisible = false; // whether the banner stays until the next decision
function showProblem(sentence, stays = false) {
  staysVisible = stays;
  $("banner").textContent = visible(sentence);
  $("banner").hidden = false;
}
function hideProblem() { if (!staysVisible) $("banner").hidden = true; }
