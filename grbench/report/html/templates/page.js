"use strict";

// Tables: a click on a heading sorts; text, bold scores and parts of the columns filter.

function sortTable(table, heading) {
  const headings = [...heading.parentElement.children];
  const column = headings.indexOf(heading);
  const numeric = heading.classList.contains("number");
  const before = heading.getAttribute("aria-sort");
  const ascending = before === "none" ? !numeric : before === "descending";
  for (const other of headings) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const key = (row) => {
    const entry = row.cells[column];
    if (entry.dataset.order !== undefined) return Number(entry.dataset.order);
    return numeric ? null : entry.textContent.trim();
  };
  const rows = [...body.rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is not known stays below
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return ascending ? order : -order;
  });
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sortTable(table, heading));
    heading.replaceChildren(button);
  }
}

for (const tools of document.querySelectorAll(".tools")) {
  const table = tools.parentElement.querySelector("table");
  const search = tools.querySelector("input[type=search]");
  const onlyBest = tools.querySelector(".only-best");
  const rows = [...table.tBodies[0].rows];
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || Boolean(onlyBest?.checked && !row.querySelector("strong"));
    }
    tools.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  search.addEventListener("input", filter);
  onlyBest?.addEventListener("change", filter);
  for (const part of tools.querySelectorAll(".parts input")) {
    part.addEventListener("change", () => {
      for (const entry of table.querySelectorAll("[data-part]")) {
        if (entry.dataset.part === part.value) entry.hidden = !part.checked;
      }
    });
  }
  tools.hidden = false;
  filter();
}

// Charts: drawn once they come near the window, in the colours of the page.

const SIGNS = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", x: "✖", cross: "✚", "triangle-down": "▼", star: "★" };

function coloured(value) {
  if (typeof value === "string") {
    const name = /^var\((--[\w-]+)\)$/.exec(value);
    return name ? getComputedStyle(document.documentElement).getPropertyValue(name[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map(coloured);
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, coloured(entry)]));
  }
  return value;
}

function plain(text) { // a name as it is written for Plotly, which reads texts as HTML
  return new DOMParser().parseFromString(text, "text/html").body.textContent;
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".plot");
    this.select = figure.querySelector("select");
    this.views = JSON.parse(figure.querySelector("script").textContent);
    this.shown = new Map(); // series that a reader chose to show or to hide
    this.drawn = false;
    this.select?.addEventListener("change", () => this.draw());
  }

  get view() {
    return this.views[this.select ? Number(this.select.value) : 0];
  }

  visible(trace) {
    return this.shown.get(trace.legendgroup) ?? trace.visible !== "legendonly";
  }

  async draw() {
    const { data, layout, alt } = this.view;
    const keyed = "keyed" in this.figure.dataset;
    const narrow = this.plot.clientWidth < 480; // where names beside points that are not on the front lie on each other
    const traces = data.map((trace) => ({
      ...trace,
      ...(keyed && { visible: this.visible(trace) }),
      ...(narrow && trace.meta === "aside" && { mode: "markers" }),
    }));
    const drag = matchMedia("(pointer: fine)").matches ? "zoom" : false; // so that a finger scrolls the page
    this.plot.setAttribute("aria-label", alt);
    this.plot.style.minHeight = `${layout.height}px`;
    const config = { responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false, modeBarButtons: [["toImage", "resetScale2d"]], toImageButtonOptions: { format: "svg", filename: this.figure.id } };
    await Plotly.react(this.plot, coloured(traces), coloured({ ...layout, dragmode: drag }), config);
    if (keyed) this.drawKey();
    this.drawn = true;
    this.figure.dataset.drawn = "";
  }

  drawKey() {
    let key = this.figure.querySelector(".key");
    if (!key) {
      key = document.createElement("div");
      key.className = "key";
      key.setAttribute("role", "group");
      key.setAttribute("aria-label", "Series that are shown");
      this.plot.after(key);
    }
    const focused = key.contains(document.activeElement) ? [...key.children].indexOf(document.activeElement) : -1;
    const series = new Map(this.view.data.map((trace) => [trace.legendgroup, trace])); // the last one has the symbol
    const buttons = [...series.values()].map((trace) => {
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.textContent = SIGNS[trace.marker.symbol] ?? "■";
      dot.style.color = trace.marker.color;
      const name = document.createElement("span");
      name.textContent = plain(trace.name);
      return this.button([dot, name], this.visible(trace), () => this.shown.set(trace.legendgroup, !this.visible(trace)));
    });
    if (series.size > 1) {
      const all = [...series.values()].every((trace) => this.visible(trace));
      const every = this.button([all ? "hide all" : "show all"], null, () => {
        for (const group of series.keys()) this.shown.set(group, !all);
      });
      every.className = "all";
      buttons.push(every);
    }
    key.replaceChildren(...buttons);
    if (focused >= 0) key.children[focused]?.focus();
  }

  button(content, pressed, act) {
    const button = document.createElement("button");
    button.type = "button";
    if (pressed !== null) button.setAttribute("aria-pressed", String(pressed));
    button.append(...content);
    button.addEventListener("click", () => {
      act();
      this.draw();
    });
    return button;
  }
}

const charts = new Map([...document.querySelectorAll(".chart")].map((figure) => [figure, new Chart(figure)]));
const nearby = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      nearby.unobserve(target);
      charts.get(target).draw();
    }
  },
  { rootMargin: "600px" },
);
for (const figure of charts.keys()) nearby.observe(figure);
addEventListener("beforeprint", () => charts.forEach((chart) => chart.drawn || chart.draw()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  charts.forEach((chart) => chart.drawn && chart.draw());
});

// Listings can be copied; the contents show where the reader is.

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code); // what remains where the browser does not let a page copy
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

const links = new Map([...document.querySelectorAll("nav li a")].map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(target.id)?.setAttribute("aria-current", "true");
    }
  },
  { rootMargin: "-10% 0px -80% 0px" },
);
for (const section of document.querySelectorAll("section")) reading.observe(section);
