// The planner: what a load needs and costs by the run's workers. The arithmetic is that of `formulas`, which Python wrote
// out from its own functions; here are only what the fields say, what a figure stands on, and how it is shown.
const planner = document.getElementById("planner");
const known = JSON.parse(document.getElementById("planner-data").textContent);
const STATUS = ["measured", "interpolated", "extrapolated", "not possible"];
const EXTRAPOLATED = 2, NOT_POSSIBLE = 3;
// What a price of such a request stands on (phaselaw.plan.coverage); `most_tokens` fit into context and memory.
function standing(worker, [prompt, output]) {
  if (prompt + output > worker.most_tokens) return NOT_POSSIBLE;
  const near = (asked, length) => formulas.near({ asked, known: length });
  const alike = worker.lengths.filter(([p, o]) => near(prompt, p) && near(output, o));
  if (alike.length) return alike.some(([, , relative]) => near(relative, 1)) ? 0 : 1;
  const within = (asked, at) => {
    const lengths = worker.lengths.map((length) => length[at]);
    return formulas.within({ asked, least: Math.min(...lengths), most: Math.max(...lengths) });
  };
  return worker.lengths.length && within(prompt, 0) && within(output, 1) ? 1 : EXTRAPOLATED;
}
// A load of the lengths that it began with is of its own kinds of request, and as sure as the least sure one.
function worst(worker, { prompt, output }) {
  const own = prompt === known.inputs.prompt && output === known.inputs.output;
  return Math.max(...(own ? known.kinds : [[prompt, output]]).map((kind) => standing(worker, kind)));
}
const finite = (value) => (Number.isFinite(value) ? value : null);
// Figures with their ends: all grow or all fall with the rate, so the ends of the rate give theirs. Outside of what was
// measured there is no interval, and beyond the model's context no figure.
function figures(worker, status, inputs, name) {
  if (status === NOT_POSSIBLE) return {};
  const usd_per_hour = inputs.usd_per_hour ?? worker.usd_per_hour;
  const rates = status === EXTRAPOLATED ? worker.tokens_per_s.slice(0, 1) : worker.tokens_per_s;
  const each = rates.map((tokens_per_s) => formulas[name]({ ...inputs, usd_per_hour, tokens_per_s }));
  const row = {};
  for (const key of Object.keys(each[0])) {
    const [value, ...ends] = each.map((found) => found[key]);
    row[key] = finite(value);
    if (row[key] === null || !ends.length) continue;
    row[`${key}_low`] = finite(Math.min(...ends));
    row[`${key}_high`] = finite(Math.max(...ends));
  }
  return row;
}
// The whole plan of some inputs: a row a worker, and two models in one service.
function planned(given) {
  const hosted = given.api_in !== null && given.api_out !== null;
  const inputs = { ...given, api_cached: given.api_cached ?? given.api_in };
  if (inputs.requests_per_s !== null) inputs.tokens_per_month = formulas.tokens_per_month(inputs);
  const rows = known.workers.map((worker) => {
    const status = worst(worker, inputs);
    return { worker, status, ...figures(worker, status, inputs, hosted ? "api" : "fleet") };
  });
  const [small, big] = [known.workers[inputs.default], known.workers[inputs.premium]];
  const both = { tokens_per_s: small.tokens_per_s.slice(0, 1), usd_per_hour: small.usd_per_hour };
  const premium = { premium_tokens_per_s: big.tokens_per_s[0], premium_usd_per_hour: inputs.usd_per_hour ?? big.usd_per_hour };
  const status = Math.max(worst(small, inputs), worst(big, inputs));
  return { inputs, rows, two: { small, big, status, ...figures(both, status, { ...inputs, ...premium }, "two") } };
}

const requests = (inputs) => inputs.tokens_per_month / formulas.tokens_per_month({ ...inputs, requests_per_s: 1 });
const digits = (value) => (value == null ? "–" : value.toLocaleString("en-US", { maximumSignificantDigits: 3 }));
const whole = (value) => (value == null ? "–" : value.toLocaleString("en-US"));
const money = (value) => (value == null ? "–" : value.toLocaleString("en-US", { maximumFractionDigits: Math.abs(value) >= 100 ? 0 : 2 }));
const places = { minimumFractionDigits: 3, maximumFractionDigits: 3 };
const price = (value) => (value == null || value < 0.01 ? digits(value) : value.toLocaleString("en-US", places));  // as a plan writes it
const parts = (value) => (value == null ? "–" : value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 }));
const usd = (value) => (value == null ? "–" : `${value < 0 ? "-" : ""}${known.mark}${money(Math.abs(value))}`);
const budgets = new Set(known.workers.map((worker) => worker.gen_tokens)).size > 1;
function named({ model, backend, batch_size, gen_tokens }) {
  const more = [batch_size > 1 && `batch ${batch_size}`, budgets && gen_tokens !== null && `${gen_tokens} output tokens`];
  return [`${model.split("/").pop()} on ${backend}`, ...more.filter(Boolean)].join(", ");
}
const COLUMNS = [
  ["usd_per_month_whole", money], ["status"], ["whole_workers", whole], ["usd_per_1m_whole", price], ["usd_per_1m", price],
  ["saved_usd_per_month_whole", money], ["pays_from_tokens_per_month", digits], ["workers", parts],
];
function shown(row, key, show) {
  const [low, high] = [row[`${key}_low`], row[`${key}_high`]];
  if (row[key] == null || (low == null && high == null) || low === high) return show(row[key]);
  return `${show(row[key])} [${show(low)}, ${high == null ? "∞" : show(high)}]${row.worker.one_more_run ? "" : " (this run)"}`;
}
function cell(words, kind, value) {
  const made = Object.assign(document.createElement("td"), { className: kind + (words === "–" ? " none" : ""), textContent: words });
  if (kind === "n") made.dataset.v = value ?? "";
  return made;
}
const table = planner.querySelector("table");
function fill(rows) {
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    const marks = [row.worker.suspect && `⚠ ${row.worker.suspect}`, row.worker.incomplete && "incomplete"].filter(Boolean);
    line.append(cell([named(row.worker), ...marks].join("; "), "name"));
    for (const [key, show] of COLUMNS) line.append(show ? cell(shown(row, key, show), "n", row[key]) : cell(STATUS[row.status], "name"));
    if (row.worker.suspect) line.className = "suspect";
    return line;
  }));
  dress(table);
  const by = table.querySelector("th[aria-sort$='ending']");
  if (by) sort(by, by.getAttribute("aria-sort") === "descending");
}
function said({ inputs, rows, two }) {
  const load = `${whole(Math.round(inputs.tokens_per_month))} tokens a month (${digits(requests(inputs))} requests/s)`;
  const [best] = rows;
  const lines = [best.usd_per_month_whole == null
    ? `No model can serve ${load} of such requests.`
    : `Cheapest for ${load}: ${named(best.worker)}, ${usd(best.usd_per_month_whole)} a month, ${whole(best.whole_workers)} worker${best.whole_workers === 1 ? "" : "s"}, ${STATUS[best.status]}.`];
  if (best.usd_per_month_api != null) {
    const pays = rows.filter((row) => row.pays_from_tokens_per_month != null).sort((a, b) => a.pays_from_tokens_per_month - b.pays_from_tokens_per_month)[0];
    const from = pays ? `pay from ${digits(pays.pays_from_tokens_per_month)} tokens a month on (${named(pays.worker)}, ${STATUS[pays.status]})` : "never pay";
    lines.push(`The API: ${usd(best.usd_per_month_api)} a month. Own workers ${from}.`);
  }
  if (two.small !== two.big) {
    const who = `${named(two.small)} and ${named(two.big)}`;
    lines.push(two.usd_per_month_whole == null ? `${who}: not possible for such requests.`
      : `${who}, routed: ${usd(two.usd_per_month_whole)} a month, ${whole(two.whole_workers_default)} + ${whole(two.whole_workers_premium)} workers, ${usd(Math.abs(two.saved_usd_per_month_whole))} ${two.saved_usd_per_month_whole < 0 ? "more" : "less"} than the premium model alone (${STATUS[two.status]}; its interval: phaselaw plan --tiers).`);
    if (inputs.success !== null && two.needed_success_rate != null) {
      const needs = two.needed_success_rate > 1 ? "impossible" : `${digits(100 * two.needed_success_rate)} %`;
      lines.push(`To pay by its successes alone the premium model must succeed in: ${needs}.`);
      const enough = inputs.failure_usd !== null && two.needed_failure_usd != null;
      const verdict = enough ? ` At ${usd(inputs.failure_usd)} it ${inputs.failure_usd >= two.needed_failure_usd ? "pays" : "does not pay"}.` : "";
      if (inputs.premium_success !== null) lines.push(two.needed_failure_usd == null ? "It never pays by what failures cost: it fails no less often." : `It pays by what failures cost from ${known.mark}${digits(two.needed_failure_usd)} a failure on.${verdict}`);
    }
  }
  document.getElementById("plan-said").replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
}
// Dollars a month against the volume, both on log axes: stairs of whole workers, the API's line, and where they meet.
const WIDE = 400, LEFT = 52, RIGHT = 388, TOP = 24, ROW = 15;
function drawn(tag, attributes, words) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (words !== undefined) made.textContent = words;
  return made;
}
function chart({ inputs, rows }) {
  const plot = planner.querySelector("svg"), volume = inputs.tokens_per_month, span = 100;
  const at = (step) => volume * span ** (step / 100 - 1);
  const steps = [...Array(201).keys()];
  const lines = rows.filter((row) => row.status !== NOT_POSSIBLE).slice(0, 5).map((row) => {
    const dollars = (step) => figures(row.worker, EXTRAPOLATED, { ...inputs, tokens_per_month: at(step) }, "fleet").usd_per_month_whole;
    return { name: named(row.worker), dashed: row.status === EXTRAPOLATED, points: steps.map((step) => [at(step), dollars(step)]), pays: row.pays_from_tokens_per_month };
  });
  const api = rows.find((row) => row.usd_per_month_api > 0);
  if (api) lines.push({ name: "the API", dashed: false, points: steps.map((step) => [at(step), (api.usd_per_month_api / volume) * at(step)]) });
  const all = lines.flatMap((line) => line.points.map(([, dollars]) => dollars)).filter((dollars) => dollars > 0);
  const top = TOP + ROW * lines.length, bottom = top + 200;
  plot.setAttribute("viewBox", `0 0 ${WIDE} ${bottom + 36}`);
  const ends = [[volume / span, volume * span], [Math.min(...all) / 1.5, Math.max(...all) * 1.5]].map((pair) => pair.map(Math.log10));
  const place = ([low, high], from, to) => (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from);
  const x = place(ends[0], LEFT, RIGHT), y = place(ends[1], bottom, top);
  const parts = [drawn("text", { class: "title", x: 8, y: 14 }, `${known.mark.trim()} a month by tokens a month`)];
  const short = (value) => value.toLocaleString("en-US", { notation: "compact" });
  const decades = ([low, high], most) => [...Array(40).keys()].map((power) => power - 12).filter((power) => power >= low && power <= high && power % Math.ceil((high - low) / most) === 0);
  for (const power of decades(ends[0], 6)) parts.push(drawn("path", { class: "grid", d: `M${x(10 ** power)} ${top}V${bottom}` }), drawn("text", { class: "tick", x: x(10 ** power), y: bottom + 14, "text-anchor": "middle" }, short(10 ** power)));
  for (const power of decades(ends[1], 8)) parts.push(drawn("path", { class: "grid", d: `M${LEFT} ${y(10 ** power)}H${RIGHT}` }), drawn("text", { class: "tick", x: LEFT - 6, y: y(10 ** power) + 4, "text-anchor": "end" }, short(10 ** power)));
  parts.push(drawn("path", { class: "frame", d: `M${LEFT} ${top}V${bottom}H${RIGHT}` }), drawn("path", { class: "reference", d: `M${x(volume)} ${top}V${bottom}` }));
  parts.push(drawn("text", { class: "said", x: RIGHT, y: bottom + 30, "text-anchor": "end" }, "tokens a month; dotted: this load"));
  lines.forEach((line, number) => {
    const look = `line c${number % 6}${line.dashed ? " dashed" : ""}`, name = [...line.name];
    parts.push(drawn("path", { class: look, d: `M10 ${TOP + ROW * number}h18` }), drawn("text", { x: 34, y: TOP + 4 + ROW * number }, name.length > 44 ? `${name.slice(0, 43).join("")}…` : line.name));
    const path = line.points.filter(([, dollars]) => dollars > 0).map(([tokens, dollars]) => `${x(tokens).toFixed(1)} ${y(dollars).toFixed(1)}`);
    parts.push(drawn("path", { class: look, d: `M${path.join("L")}` }));
    if (!(line.pays >= volume / span && line.pays <= volume * span)) return;
    const label = `${line.name} pays from ${digits(line.pays)} tokens a month on`;
    parts.push(drawn("circle", { class: `point c${number % 6}`, cx: x(line.pays), cy: y((api.usd_per_month_api / volume) * line.pays), r: 3.8, "aria-label": label }));
  });
  plot.replaceChildren(...parts);
  reachable(plot);
}

// The fields: a number and a slider each; what was typed last of tokens a month and requests/s stays, the other follows.
const fields = [...planner.querySelectorAll("input[name], select")];
const field = (name) => fields.find((each) => each.name === name);
const slider = (each) => each.parentElement.querySelector("input[type=range]");
let anchor = known.inputs.requests_per_s === null ? "tokens_per_month" : "requests_per_s";
const sizes = known.workers.map((worker) => worker.params_millions ?? 0);
known.inputs.default = sizes.indexOf(Math.min(...sizes));
known.inputs.premium = sizes.indexOf(Math.max(...sizes));
for (const name of ["default", "premium"]) field(name).append(...known.workers.map((worker, at) => new Option(named(worker), at)));
function moved(range) {
  const [low, high, share] = [Number(range.dataset.low), Number(range.dataset.high), range.value / 1000];
  const value = "log" in range.dataset ? low * (high / low) ** share : low + (high - low) * share;
  return Number(value.toPrecision(3));
}
function follow(each) {
  const range = slider(each);
  if (!range) return;
  const [low, high] = [Number(range.dataset.low), Number(range.dataset.high)], value = Math.min(high, Math.max(low, Number(each.value)));
  range.value = 1000 * ("log" in range.dataset ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
}
function inputsNow() {
  const inputs = Object.fromEntries(fields.map((each) => [each.name, each.value === "" ? null : Number(each.value)]));
  return { ...inputs, requests_per_s: anchor === "requests_per_s" ? inputs.requests_per_s : null };
}
function plan() {
  const other = anchor === "requests_per_s" ? "tokens_per_month" : "requests_per_s"; // it follows from the rest
  const wrong = fields.filter((each) => !each.validity.valid && each.name !== other);
  fields.forEach((each) => each.setAttribute("aria-invalid", wrong.includes(each)));
  if (wrong.length) {
    document.getElementById("plan-said").textContent = `Not a value: ${wrong.map((each) => each.labels[0].textContent).join(", ")}.`;
    return fill([]);
  }
  const found = planned(inputsNow());
  field(other).value = Number((other === "tokens_per_month" ? found.inputs.tokens_per_month : requests(found.inputs)).toPrecision(6));
  fields.forEach(follow);
  found.rows.sort((a, b) => (a.usd_per_month_whole ?? Infinity) - (b.usd_per_month_whole ?? Infinity) || 0);
  said(found);
  fill(found.rows);
  chart(found);
}
// The fragment holds what was changed: #planner&utilisation=0.7. A value that no field takes is not taken.
function begin() {
  const asked = new URLSearchParams(location.hash.startsWith("#planner&") ? location.hash.slice(9) : "");
  anchor = asked.has("requests_per_s") || (known.inputs.requests_per_s !== null && !asked.has("tokens_per_month")) ? "requests_per_s" : "tokens_per_month";
  for (const each of fields) {
    each.value = known.inputs[each.name] ?? "";
    if (!asked.has(each.name)) continue;
    each.value = asked.get(each.name);
    if (!each.validity.valid || each.selectedIndex === -1) each.value = known.inputs[each.name] ?? "";
  }
  plan();
}
function keep() {
  const changed = fields.filter((each) => each.value !== String(known.inputs[each.name] ?? "") && (each.name === anchor || !["tokens_per_month", "requests_per_s"].includes(each.name)));
  const hash = `#planner&${new URLSearchParams(changed.map((each) => [each.name, each.value]))}`;
  history.replaceState(null, "", hash);
  planner.querySelector(".share").href = hash;
}
planner.addEventListener("input", ({ target }) => {
  const each = target.type === "range" ? field(target.dataset.for) : target;
  if (target.type === "range") each.value = moved(target);
  if (["tokens_per_month", "requests_per_s"].includes(each.name)) anchor = each.name;
  plan();
});
planner.addEventListener("change", keep);
window.addEventListener("hashchange", () => { if (location.hash.startsWith("#planner&")) begin(); });
if (known.workers.length < 2) field("default").closest("fieldset").remove();
begin();
