"use strict";
// On a narrow page rows become cards (page.css), which need the words that are set below.
document.documentElement.classList.add("cards");
// Tables sort by the column whose heading is pressed: numbers by value, words by the alphabet, missing last.
function sort(heading, down) {
  const table = heading.closest("table");
  for (const other of table.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const at = heading.cellIndex;
  const numeric = heading.classList.contains("n");
  const value = (row) => numeric ? row.cells[at].dataset.v : row.cells[at].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
    return down ? -order : order;
  });
  table.tBodies[0].append(...rows);
}
// On a narrow page rows are cards: they keep the roles of a table, and each cell the words of its heading.
function dress(table) {
  table.setAttribute("role", "table");
  table.caption.setAttribute("role", "caption");
  for (const row of table.rows) row.setAttribute("role", "row");
  const headings = [...table.querySelectorAll("th")];
  const words = headings.map((heading) => [heading.querySelector("button").textContent, heading.querySelector(".source")?.textContent]);
  for (const row of table.tBodies[0].rows) {
    [...row.cells].forEach((cell, at) => {
      cell.setAttribute("role", "cell");
      cell.dataset.title = words[at][0];
      if (words[at][1]) cell.dataset.source = words[at][1];
    });
  }
}
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.querySelectorAll("th")];
  for (const heading of headings) {
    heading.setAttribute("aria-sort", "none");
    heading.querySelector("button").addEventListener("click", () => sort(heading, heading.getAttribute("aria-sort") === "ascending"));
  }
  dress(table);
  if (table.tBodies[0].rows.length < 4) continue;
  const label = document.createElement("label");
  label.className = "sorter";
  label.textContent = "Sort by ";
  const choice = document.createElement("select");
  choice.append(new Option("as given", ""));
  headings.forEach((heading, at) => {
    const name = heading.querySelector("button").textContent;
    choice.append(new Option(`${name} ▲`, `${at} up`), new Option(`${name} ▼`, `${at} down`));
  });
  const given = [...table.tBodies[0].rows];
  choice.addEventListener("change", () => {
    const [at, way] = choice.value.split(" ");
    if (at === "") table.tBodies[0].append(...given); else sort(headings[Number(at)], way === "down");
  });
  label.append(choice);
  table.before(label);
  if (given.length <= 10) continue;
  const unfold = document.createElement("button");
  unfold.className = "unfold";
  unfold.type = "button";
  unfold.textContent = `Show all ${given.length} rows`;
  unfold.addEventListener("click", () => { table.classList.remove("folded"); unfold.remove(); });
  table.classList.add("folded");
  table.after(unfold);
}
// A table that is wider than its place is set tighter; one that still is can be scrolled, by the keyboard too.
// Those that are on the screen, or soon will be, are measured together and once a frame: the browser lays out no others
// (content-visibility), so that a search which opens every section is as quick as one that opens few.
const seen = new Set();
function reach() {
  const places = [...seen];
  const wide = () => new Set(places.filter((place) => place.scrollWidth > place.clientWidth));
  for (const place of places) place.querySelector("table").classList.remove("tight");
  for (const place of wide()) place.querySelector("table").classList.add("tight");
  const still = wide();
  for (const place of places) {
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", place.querySelector("caption").textContent]]) {
      if (still.has(place)) place.setAttribute(name, value); else place.removeAttribute(name);
    }
  }
}
let due = 0;
function reachSoon() { due ||= requestAnimationFrame(() => { due = 0; reach(); }); }
document.addEventListener("contentvisibilityautostatechange", ({ target, skipped }) => {
  if (target.matches(".scroll")) seen[skipped ? "delete" : "add"](target);
  reachSoon();
}, true);
window.addEventListener("resize", reachSoon);
// What a point or a word says, when the pointer or the keyboard comes to it.
const tip = document.getElementById("tip");
function show(over, words) {
  const box = over.getBoundingClientRect();
  tip.textContent = words;
  tip.hidden = false;
  const left = Math.min(window.scrollX + box.left, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = window.scrollY + box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above < window.scrollY ? window.scrollY + box.bottom + 8 : above}px`;
}
function hide() { tip.hidden = true; }
function told(element) {
  const point = element.closest(".point");
  if (point) return [point, point.getAttribute("aria-label")];
  const word = element.closest("a.word");
  if (word) return [word, document.querySelector(word.getAttribute("href")).nextSibling.textContent];
  const cell = element.closest("td:not(.n)");
  const entry = cell && meanings.find(([name]) => cell.textContent.startsWith(name));
  return entry && [cell, entry[1]];
}
const meanings = [...document.querySelectorAll(".words dt")].map((dt) => [dt.textContent, dt.nextSibling.textContent]);
for (const [come, go] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  document.addEventListener(come, (event) => { const found = told(event.target); if (found) show(...found); });
  document.addEventListener(go, hide);
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
// A plot is one stop of the Tab key; within it the arrow keys go from point to point.
function reachable(plot) {
  const points = [...plot.querySelectorAll(".point")];
  points.forEach((point, at) => {
    point.setAttribute("role", "img");
    point.setAttribute("tabindex", at ? "-1" : "0");
    point.addEventListener("keydown", (event) => {
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: points.length - 1 }[event.key];
      if (to === undefined || !points[to]) return;
      event.preventDefault();
      point.setAttribute("tabindex", "-1");
      points[to].setAttribute("tabindex", "0");
      points[to].focus();
    });
  });
}
document.querySelectorAll("svg.plot").forEach(reachable);
// A figure as one SVG with its colours in it: what is seen now, light or dark, its panels side by side.
function drawing(figure) {
  const panels = [...figure.querySelectorAll("svg.plot")];
  const sizes = panels.map((panel) => [panel.viewBox.baseVal.width, panel.viewBox.baseVal.height]);
  const wide = Math.max(...sizes.map(([width]) => width)), high = Math.max(...sizes.map(([, height]) => height));
  const across = Math.min(3, panels.length);
  const look = getComputedStyle(document.documentElement);
  const style = document.getElementById("plots").textContent.replaceAll("svg.plot ", "").replace(/var\((--\w+)\)/g, (_, name) => look.getPropertyValue(name));
  const size = [wide * across, high * Math.ceil(panels.length / across)];
  const inner = panels.map((panel, at) => {
    const copy = panel.cloneNode(true);
    copy.setAttribute("x", wide * (at % across));
    copy.setAttribute("y", high * Math.floor(at / across));
    copy.setAttribute("width", sizes[at][0]);
    copy.setAttribute("height", sizes[at][1]);
    return new XMLSerializer().serializeToString(copy);
  });
  const page = `<rect width="100%" height="100%" fill="${look.getPropertyValue("--page")}"/>`;
  return [size, `<svg xmlns="http://www.w3.org/2000/svg" width="${size[0]}" height="${size[1]}" viewBox="0 0 ${size.join(" ")}"><style>${style}</style>${page}${inner.join("")}</svg>`];
}
async function png([[width, height], svg]) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
// To the clipboard; where a browser doesn't let a page write there, as a file.
async function copied(type, data, name) {
  try {
    await navigator.clipboard.write([new ClipboardItem({ [type]: data })]);
    return "Copied";
  } catch {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await data), download: name });
    link.click();
    return "Saved";
  }
}
function button(words, does) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: words });
  made.addEventListener("click", async () => {
    const said = await does();
    if (!said) return;
    made.textContent = said;
    setTimeout(() => { made.textContent = words; }, 1500);
  });
  return made;
}
for (const figure of document.querySelectorAll("figure")) {
  const tools = Object.assign(document.createElement("div"), { className: "tools" });
  const address = `${location.href.split("#")[0]}#${figure.id}`;
  const svg = () => new Blob([drawing(figure)[1]], { type: "image/svg+xml" });
  const link = Object.assign(document.createElement("a"), { href: `#${figure.id}`, textContent: "Link" });
  link.setAttribute("aria-label", `Link to this figure: ${address}`);
  const enlarge = button("Enlarge", () => { enlarge.setAttribute("aria-pressed", figure.classList.toggle("large")); });
  enlarge.setAttribute("aria-pressed", "false");
  tools.append(
    button("PNG", () => copied("image/png", png(drawing(figure)), `${figure.id}.png`)),
    button("SVG", () => copied("text/plain", svg().text().then((text) => new Blob([text], { type: "text/plain" })), `${figure.id}.svg`)),
    enlarge, link,
  );
  tools.setAttribute("role", "group");
  tools.setAttribute("aria-label", `Copy or enlarge: ${figure.querySelector("figcaption").textContent}`);
  figure.append(tools);
}
// Folded sections open for a link into them, for print, and for a search; a search shows those alone that hold its words.
const folded = [...document.querySelectorAll("details")];
function open() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1).split("&")[0]));
  const place = target && target.closest("details");
  if (place) { place.open = true; target.scrollIntoView(); }
}
window.addEventListener("hashchange", open);
open();
let before = [];
window.addEventListener("beforeprint", () => { before = folded.map((each) => each.open); folded.forEach((each) => { each.open = true; }); });
window.addEventListener("afterprint", () => { folded.forEach((each, at) => { each.open = before[at]; }); });
const search = Object.assign(document.createElement("input"), { type: "search", placeholder: "Search tables" });
search.setAttribute("aria-label", "Search all tables");
search.addEventListener("input", () => {
  const words = search.value.trim().toLowerCase();
  for (const each of folded) {
    const holds = words !== "" && each.textContent.toLowerCase().includes(words);
    each.hidden = words !== "" && !holds;
    each.open = holds;
    for (const row of each.querySelectorAll("tbody tr")) row.classList.toggle("hit", holds && row.textContent.toLowerCase().includes(words));
  }
});
document.querySelector("nav").append(search);
