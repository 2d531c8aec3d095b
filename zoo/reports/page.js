"use strict";
// Grids: one at a time, by slider, buttons or the keyboard; its place is marked in every chart.
const grids = [...document.querySelectorAll("figure.grid")];
const charts = [...document.querySelectorAll("figure.chart")];
const slider = document.getElementById("slider");

function place(line, share) {
  const on = share >= 0 && share <= 1;
  line.classList.toggle("on", on);
  if (on) for (const end of ["x1", "x2"]) line.setAttribute(end, 100 * share + "%");
}

function show(number) {
  const at = Math.min(Math.max(number, 1), grids.length);
  grids.forEach((grid, i) => { grid.hidden = i !== at - 1; });
  slider.value = at;
  const text = grids[at - 1].querySelector("figcaption").textContent;
  slider.setAttribute("aria-valuetext", text);
  document.getElementById("where").textContent = at + " of " + grids.length;
  for (const chart of charts)
    for (const line of chart.querySelectorAll(".grid-at")) place(line, grids[at - 1].dataset.images / chart.dataset.end);
}

if (slider) {
  const play = document.getElementById("play");
  let timer = 0;
  const halt = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const go = (number) => { halt(); show(number); };
  slider.addEventListener("input", () => go(+slider.value));
  document.getElementById("back").addEventListener("click", () => go(+slider.value - 1));
  document.getElementById("next").addEventListener("click", () => go(+slider.value + 1));
  play.addEventListener("click", () => {
    if (timer) return halt();
    if (+slider.value === grids.length) show(1);
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      show(+slider.value + 1);
      if (+slider.value === grids.length) halt();
    }, 600);
  });
  slider.closest(".controls").hidden = false;
  show(grids.length);
}

// Charts: the values at a line of the log, by pointer or with the arrow keys.
const readings = JSON.parse(document.getElementById("readings").textContent);
const format = (value) => Number.isInteger(value) || Math.abs(value) >= 1000
  ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));

for (const chart of charts) {
  const end = +chart.dataset.end;
  const keys = [...chart.querySelectorAll("tr[data-key]")].map((row) => row.dataset.key);
  const lines = readings.images.map((_, i) => i).filter((i) => keys.some((key) => readings.keys[key][i] !== null));
  const readout = chart.querySelector(".readout");
  const areas = [...chart.querySelectorAll(".area")];
  let at = lines.length - 1;

  const read = (index) => {
    at = Math.min(Math.max(index, 0), lines.length - 1);
    const line = lines[at], images = readings.images[line];
    const parts = keys.filter((key) => readings.keys[key][line] !== null)
      .map((key) => key + " " + format(readings.keys[key][line]));
    readout.textContent = "at " + format(images) + " images: " + parts.join(", ");
    for (const area of areas) {
      place(area.querySelector(".hover"), images / end);
      area.setAttribute("aria-valuenow", at);
      area.setAttribute("aria-valuetext", readout.textContent);
    }
  };
  const nearest = (images) => {
    let best = 0;
    lines.forEach((line, i) => {
      if (Math.abs(readings.images[line] - images) < Math.abs(readings.images[lines[best]] - images)) best = i;
    });
    return best;
  };
  if (!lines.length) continue;
  for (const area of areas) {
    const attributes = { tabindex: 0, role: "slider", "aria-label": "Read values of " + keys.join(", "),
      "aria-valuemin": 0, "aria-valuemax": lines.length - 1, "aria-valuenow": at, "aria-valuetext": "not read yet" };
    for (const [name, value] of Object.entries(attributes)) area.setAttribute(name, value);
    const point = (event) => {
      const box = area.getBoundingClientRect();
      read(nearest((event.clientX - box.left) / box.width * end));
    };
    area.addEventListener("pointermove", point);
    area.addEventListener("pointerdown", point);
    area.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.round(lines.length / 10));
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -page, PageUp: page,
        Home: -lines.length, End: lines.length };
      if (!(event.key in steps)) return;
      event.preventDefault();
      read(at + steps[event.key]);
    });
  }
}
