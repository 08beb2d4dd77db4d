// What makes the pages live; everything on them works without it. htmx fetches a page again when the store changes.
"use strict";

// ---- plots: the server's drawing, drawn again with a cursor ---------------------------------------------------------
const plots = new Map(); // figure -> uPlot

function draw(figure) {
  const source = figure.querySelector("script[type='application/json']");
  if (!source || !window.uPlot) return;
  const {times, heights, lines, marks, spans} = JSON.parse(source.textContent);
  const canvas = figure.querySelector(".canvas"), readout = figure.querySelector(".readout");
  const style = getComputedStyle(figure), colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const tint = (css, share) => `color-mix(in srgb, ${css} ${share}%, transparent)`;
  const shown = (value) => value == null ? "–" : new Intl.NumberFormat("en-GB", {maximumSignificantDigits: 4}).format(value);
  const room = lines[0].kind === "bars" && times.length > 1 ? (times[1] - times[0]) / 2 : 0;
  const data = [times], series = [{}], bands = [], named = [];
  for (const line of lines) {
    const own = line.kind === "range" ? colour("past") : colour(`c${line.colour}`);
    const bars = line.kind === "bars";
    named.push([data.length, line]);
    data.push(line.values);
    series.push({
      label: line.label, stroke: bars ? undefined : own, width: line.kind === "range" ? 1 : 1.8, points: {show: false},
      dash: line.kind === "forecast" ? [2, 4] : undefined, fill: bars ? tint(own, 80) : undefined,
      paths: bars ? uPlot.paths.bars({size: [0.8, 60], align: 0}) : undefined,
    });
    if (line.lower) {
      bands.push({series: [data.length, data.length + 1], fill: tint(own, line.kind === "range" ? 22 : 16)});
      data.push(line.upper, line.lower);
      series.push({stroke: undefined, width: 0, points: {show: false}}, {stroke: undefined, width: 0, points: {show: false}});
    }
  }
  const kinds = {warn: colour("warn"), bad: colour("bad"), incident: colour("bad-wash"), ahead: colour("ahead")};
  const under = (plot) => {
    const {ctx, bbox} = plot;
    ctx.save();
    for (const {start, end, kind} of spans) {
      const clip = (at) => Math.min(Math.max(plot.valToPos(at, "x", true), bbox.left), bbox.left + bbox.width);
      const left = clip(start), right = end == null ? bbox.left + bbox.width : clip(end);
      ctx.fillStyle = kinds[kind] || colour("faint");
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
    }
    ctx.restore();
  };
  const over = (plot) => {
    const {ctx, bbox} = plot, ratio = uPlot.pxRatio;
    ctx.save();
    ctx.font = `${11.5 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom";
    for (const {value, label, kind} of marks) {
      const y = plot.valToPos(value, "y", true);
      ctx.strokeStyle = ctx.fillStyle = kinds[kind] || colour("strong");
      ctx.lineWidth = 1.2 * ratio;
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.fillText(label, bbox.left + bbox.width - 4 * ratio, y - 3 * ratio);
    }
    ctx.restore();
  };
  const said = (plot) => {
    const at = plot.cursor.idx;
    readout.replaceChildren();
    if (at == null) return;
    const moment = new Date(times[at] * 1000).toISOString().slice(0, 16).replace("T", " ");
    readout.append(`${moment} UTC`);
    for (const [index, line] of named) {
      if (data[index][at] == null) continue;
      const value = document.createElement("b");
      value.textContent = shown(data[index][at]);
      const bounds = line.lower?.[at] == null ? "" : ` (${shown(line.lower[at])} to ${shown(line.upper[at])})`;
      readout.append(` · ${line.label} `, value, bounds);
    }
  };
  const clock = (at) => { // as the server writes it
    const moment = new Date(at * 1000);
    if (at % 86400 === 0) return `${moment.getUTCDate()} ${moment.toLocaleString("en-GB", {month: "short", timeZone: "UTC"})}`;
    return moment.toISOString().slice(11, at % 60 ? 19 : 16);
  };
  const axis = {stroke: colour("soft"), font: "11.5px system-ui, sans-serif", grid: {stroke: colour("line"), width: 1}, ticks: {show: false}};
  figure.classList.add("drawn");
  const plot = new uPlot({
    width: canvas.clientWidth, height: canvas.clientHeight, series, bands,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: {show: false}, cursor: {y: false, drag: {setScale: false}, points: {size: 6}},
    padding: [8, 18, 0, 0],
    scales: {x: {time: true, range: (_, low, high) => [low - room, high + room]}, y: {range: () => heights}},
    axes: [{...axis, grid: {show: false}, size: 28, values: (_, ticks) => ticks.map(clock)}, {...axis, size: 56, values: (_, ticks) => ticks.map(shown)}],
    hooks: {drawClear: [under], draw: [over], setCursor: [said]},
  }, data, canvas);
  plots.set(figure, plot);
}

function redraw() {
  for (const [figure, plot] of [...plots]) {
    plot.destroy();
    plots.delete(figure);
    if (figure.isConnected) draw(figure);
  }
}

function drawIn(root) {
  for (const figure of root.querySelectorAll("figure[data-plot]:not(.drawn)")) draw(figure);
  for (const [figure, plot] of plots) {
    if (figure.isConnected) continue;
    plot.destroy();
    plots.delete(figure);
  }
}

let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => { for (const figure of plots.keys()) figure.classList.remove("drawn"); });
addEventListener("afterprint", () => { for (const figure of plots.keys()) figure.classList.add("drawn"); });

// ---- times: "3 min ago" goes on being true --------------------------------------------------------------------------
function age(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= 2 * size || (size === 60 && seconds >= 90)) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}
const skew = Date.parse(document.documentElement.dataset.now) - Date.now(); // the server's clock is the one that counts
setInterval(() => {
  for (const time of document.querySelectorAll("time[data-ago]"))
    time.textContent = `${age((Date.now() + skew - Date.parse(time.dateTime)) / 1000)} ago`;
}, 10000);

// ---- changes --------------------------------------------------------------------------------------------------------
addEventListener("DOMContentLoaded", () => {
  drawIn(document);
  const live = document.getElementById("live");
  if (!live) return;
  const fresh = live.cloneNode(true);
  document.addEventListener("visibilitychange", () => { // browsers allow six connections: a hidden page holds none
    const there = document.getElementById("live");
    if (document.hidden && there) htmx.swap(there, "", {swapStyle: "delete"});
    if (document.hidden || document.getElementById("live")) return;
    document.body.append(fresh.cloneNode(true));
    htmx.process(document.getElementById("live"));
    htmx.trigger("#refresh", "refresh");
  });
});
addEventListener("htmx:oobBeforeSwap", (event) => {
  const {target, fragment} = event.detail;
  const plot = (root) => root.querySelector("figure[data-plot] script")?.textContent;
  if (target.matches("[data-plots]") && plot(target) === plot(fragment)) event.detail.shouldSwap = false; // keep its cursor
  const typing = (field) => field === document.activeElement || (field.defaultValue ?? field.value) !== field.value;
  if ([...target.querySelectorAll("input:not([type=hidden]), textarea, select")].some(typing)) event.detail.shouldSwap = false;
  for (const open of target.querySelectorAll("details[id][open]"))
    fragment.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
});
addEventListener("htmx:load", (event) => drawIn(event.target));
const offline = (is) => () => document.body.classList.toggle("offline", is);
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:sseError"]) addEventListener(name, offline(true));
for (const name of ["htmx:sseOpen", "htmx:afterOnLoad"]) addEventListener(name, offline(false));
