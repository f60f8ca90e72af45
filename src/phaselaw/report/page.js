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
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.querySelectorAll("th")];
  for (const heading of headings) {
    heading.setAttribute("aria-sort", "none");
    heading.querySelector("button").addEventListener("click", () => sort(heading, heading.getAttribute("aria-sort") === "ascending"));
  }
  // On a narrow page rows are cards: they keep the roles of a table, and a list of columns takes the headings' place.
  table.setAttribute("role", "table");
  for (const row of table.rows) row.setAttribute("role", "row");
  const words = headings.map((heading) => [heading.querySelector("button").textContent, heading.querySelector(".source")?.textContent]);
  for (const row of table.tBodies[0].rows) {
    [...row.cells].forEach((cell, at) => {
      cell.setAttribute("role", "cell");
      cell.dataset.title = words[at][0];
      if (words[at][1]) cell.dataset.source = words[at][1];
    });
  }
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
function reach() {
  for (const place of document.querySelectorAll(".scroll")) {
    const { classList } = place.querySelector("table");
    classList.remove("tight");
    if (place.scrollWidth > place.clientWidth) classList.add("tight");
    const wide = place.scrollWidth > place.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", place.querySelector("caption").textContent]]) {
      if (wide) place.setAttribute(name, value); else place.removeAttribute(name);
    }
  }
}
reach();
window.addEventListener("resize", reach);
// A point names itself when the pointer or the keyboard comes to it.
const tip = document.getElementById("tip");
function show(point) {
  const box = point.getBoundingClientRect();
  tip.textContent = point.getAttribute("aria-label");
  tip.hidden = false;
  const left = Math.min(window.scrollX + box.left, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${window.scrollY + box.top - tip.offsetHeight - 8}px`;
}
// A plot is one stop of the Tab key; within it the arrow keys go from point to point.
function hide() { tip.hidden = true; }
for (const plot of document.querySelectorAll("svg.plot")) {
  const points = [...plot.querySelectorAll(".point")];
  points.forEach((point, at) => {
    point.setAttribute("role", "img");
    point.setAttribute("tabindex", at ? "-1" : "0");
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("focus", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("blur", hide);
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
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
