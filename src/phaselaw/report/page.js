"use strict";
// Tables sort by the column whose heading is pressed: numbers by value, words by the alphabet, missing last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const table = heading.closest("table");
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const at = heading.cellIndex;
    const numeric = heading.classList.contains("number");
    const value = (row) => row.cells[at].dataset.value;
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
      return down ? -order : order;
    });
    body.append(...rows);
  });
}
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
