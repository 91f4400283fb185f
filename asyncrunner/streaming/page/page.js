// Shows one run as it goes on. What comes from a run is only ever put in as text.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const MOST_EVENTS = 100;
const $ = (id) => document.getElementById(id);
let source = null;
let isStale = true;

async function ask(path) {
  const reply = await fetch(path);
  if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
  return reply.json();
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function say(id, error) {
  $(id).textContent = String(error.message || error);
}

async function listRuns() {
  const chosen = $("runs").value;
  const { runs } = await ask("/v1/runs?limit=100");
  $("runs").replaceChildren(...runs.filter((run) => run.run).map((run) => {
    const option = element("option", `${run.name} · ${run.state}`);
    option.value = run.run;
    return option;
  }));
  if (chosen) $("runs").value = chosen;
}

function line(series) {
  const values = series.mean.map(Number);
  const finite = values.filter(Number.isFinite);
  const low = Math.min(...finite), high = Math.max(...finite);
  const first = series.iter[0], last = series.iter[series.iter.length - 1];
  const points = values.flatMap((value, n) => Number.isFinite(value)
    ? [`${100 * (series.iter[n] - first) / (last - first || 1)},${100 * (1 - (value - low) / (high - low || 1))}`]
    : []);
  const shape = document.createElementNS(SVG, "polyline");
  shape.setAttribute("points", points.join(" "));
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 -3 100 106");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.append(shape);
  return svg;
}

async function draw() {
  const run = encodeURIComponent($("runs").value);
  const [about, { metrics }] = await Promise.all([
    ask(`/v1/runs/${run}`), ask(`/v1/runs/${run}/metrics?points=300`)]);
  const of = (count, most) => (most === null ? `${count}` : `${count} of ${most}`);
  $("state").textContent = `${about.state} ${about.reason} · epoch ${of(about.epoch, about.max_epochs)}`
    + ` · iter ${of(about.iter, about.max_iters)} · attempts ${about.attempts.length}`
    + ` · checkpoints ${about.checkpoints.length} · ${about.path}`;
  $("charts").replaceChildren(...Object.entries(metrics).map(([name, series]) => {
    const figure = document.createElement("figure");
    const newest = series.mean[series.mean.length - 1];
    const shown = typeof newest === "number" ? newest.toPrecision(5) : newest;
    figure.append(element("figcaption", `${name} ${shown}`), line(series));
    return figure;
  }));
}

function show(message) {
  isStale = true;
  const event = JSON.parse(message.data);
  const row = document.createElement("tr");
  const told = JSON.stringify(event.data);
  row.append(element("td", message.lastEventId), element("td", event.kind),
    element("td", told.length > 300 ? `${told.slice(0, 300)}…` : told));
  $("events").prepend(row);
  while ($("events").childElementCount > MOST_EVENTS) $("events").lastChild.remove();
}

function follow() {
  if (source) source.close();
  $("events").replaceChildren();
  isStale = true;
  const run = encodeURIComponent($("runs").value);
  source = new EventSource(`/v1/runs/${run}/events?since=end&coalesce=1`);
  source.onopen = () => { $("stream").textContent = "live"; };
  source.onerror = () => { $("stream").textContent = "connecting again …"; };
  source.onmessage = show;
  for (const kind of ["stream_gap", "stream_left_out"]) source.addEventListener(kind, show);
}

async function tick() {
  try {
    if (isStale && $("runs").value) {
      isStale = false;
      await draw();
    }
  } catch (error) {
    say("state", error);
  }
  setTimeout(tick, 1000);
}

$("runs").addEventListener("change", follow);
setInterval(() => listRuns().catch((error) => say("state", error)), 10000);
listRuns().then(() => { follow(); tick(); }, (error) => say("state", error));
