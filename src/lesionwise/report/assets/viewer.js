"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const bench = document.getElementById("bench");
  const status = document.getElementById("where");
  const table = document.getElementById("lesion-table");
  const filters = document.querySelector("form[data-filters='lesion-table']");
  const rowOf = new Map();
  for (const row of table.tBodies[0].rows) {
    const entry = data.rows[Number(row.dataset.row)];
    entry.element = row;
    rowOf.set(`${entry.session}\n${entry.method}\n${entry.label}`, entry);
  }

  let viewers = [];
  let selected = null;
  let method = data.methods[0];
  let colorBy = data.changes ? "change" : "lesion";
  let show = "outline";

  const describe = (entry) => [
    `Lesion ${entry.label}`,
    data.visits.length > 1 ? entry.session : "",
    entry.state,
    entry.location,
    entry.volume === null ? "" : `${Math.round(entry.volume)} mm³`,
    entry.confidence === null ? "" : `confidence ${entry.confidence.toFixed(2)}`,
    entry.group ? `touches others (group ${entry.group})` : "",
  ].filter(Boolean).join(" · ");

  const mark = (entry, { scroll = true } = {}) => {
    selected?.element.removeAttribute("aria-current");
    selected = entry;
    for (const ring of document.querySelectorAll(".ring")) ring.remove();
    if (!entry) return;
    entry.element.setAttribute("aria-current", "true");
    for (const row of table.tBodies[0].rows) row.tabIndex = row === entry.element ? 0 : -1;
    if (scroll) {
      const box = document.getElementById("lesion-scroll");
      const top = entry.element.offsetTop - table.tHead.offsetHeight;
      if (top < box.scrollTop || entry.element.offsetTop + entry.element.offsetHeight > box.scrollTop + box.clientHeight) {
        box.scrollTop = top - box.clientHeight / 3;
      }
    }
    const [x, y] = entry.picture ?? [];
    const frame = document.querySelector(`[data-slices="${CSS.escape(entry.session)}"]`);
    if (x !== undefined && frame) {
      const ring = document.createElement("span");
      ring.className = "ring";
      ring.style.left = `${100 * x}%`;
      ring.style.top = `${100 * y}%`;
      frame.append(ring);
    }
  };

  const say = (text) => { status.textContent = text; };

  const setMethod = async (name) => {
    method = name;
    mark(null);
    for (const viewer of viewers) await viewer.load(name);
  };

  const reveal = async (entry) => {
    if (!entry.element.hidden) return;
    for (const field of filters.elements) if (field.name) field.value = field.name === "method" ? entry.method : "";
    filters.dispatchEvent(new Event("change"));
    if (entry.method !== method) await setMethod(entry.method);
  };

  const goTo = async (entry) => {
    await reveal(entry);
    mark(entry);
    say(describe(entry));
    for (const viewer of viewers) {
      if (entry.place) viewer.nv.scene.crosshairPos = viewer.nv.mm2frac(entry.place);
      const same = viewer.session === entry.session ? entry
        : data.rows.find((row) => entry.track && row.track === entry.track && row.session === viewer.session && row.method === entry.method);
      viewer.nv.opts.atlasActiveIndex = same ? viewer.valueOf(same) : 0;
      viewer.nv.updateGLVolume();
    }
  };

  const visible = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const step = (by) => {
    const rows = visible();
    if (!rows.length) return;
    const at = selected ? rows.indexOf(selected.element) : -1;
    const next = rows[Math.min(Math.max(at < 0 ? 0 : at + by, 0), rows.length - 1)];
    goTo(data.rows[Number(next.dataset.row)]);
    next.focus({ preventScroll: true });
  };

  for (const row of table.tBodies[0].rows) {
    row.dataset.goto = "";
    row.tabIndex = -1;
    row.addEventListener("click", () => goTo(data.rows[Number(row.dataset.row)]));
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") goTo(data.rows[Number(row.dataset.row)]);
      else if (event.key === "ArrowDown") step(1);
      else if (event.key === "ArrowUp") step(-1);
      else return;
      event.preventDefault();
    });
  }
  for (const row of document.querySelectorAll("#change-table tr[data-to-label]")) {
    const target = () => rowOf.get(`${row.dataset.toSession}\n${data.methods[0]}\n${row.dataset.toLabel}`);
    if (!target()) continue;
    row.dataset.goto = "";
    const go = () => {
      goTo(target());
      bench.scrollIntoView({ block: "nearest" });
    };
    row.addEventListener("click", go);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
  }
  const makeFirstReachable = () => {
    const rows = visible();
    if (rows.length && !rows.some((row) => row.tabIndex === 0)) rows[0].tabIndex = 0;
  };
  table.addEventListener("filtered", makeFirstReachable);
  makeFirstReachable();

  // On paper the pictures come first and the long table last.
  const home = bench.nextSibling;
  addEventListener("beforeprint", () => bench.parentElement.append(bench));
  addEventListener("afterprint", () => bench.parentElement.insertBefore(bench, home));

  const unpack = async (id) => {
    const text = document.getElementById(id).textContent;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  };

  const fallBack = (reason) => {
    bench.dataset.viewer = "none";
    document.getElementById("no-viewer-reason").textContent = reason;
    document.documentElement.dataset.viewer = "none";
  };
  if (typeof DecompressionStream === "undefined") return fallBack("This browser is too old for the 3D viewer.");
  const probe = document.createElement("canvas").getContext("webgl2");
  if (!probe) return fallBack("This browser shows no WebGL2, which the 3D viewer needs.");
  probe.getExtension("WEBGL_lose_context")?.loseContext();

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  class Viewer {
    constructor(visit, number) {
      this.visit = visit;
      this.number = number;
      this.session = visit.session;
      this.canvas = document.getElementById(`canvas-${number}`);
    }
    async start() {
      this.nv = new niivue.Niivue({
        backColor: [0, 0, 0, 1],
        crosshairColor: [0.75, 0.8, 0.85, 0.6],
        crosshairWidth: 0.35,
        crosshairWidthUnit: "mm",
        crosshairGap: 10,
        fontColor: [0.8, 0.83, 0.86, 1],
        textHeight: 0.05,
        fontMinPx: 15,
        isRadiologicalConvention: true,
        showAllOrientationMarkers: true,
        sagittalNoseLeft: true,
        isSliceMM: true,
        show3Dcrosshair: true,
        multiplanarLayout: 2,
        multiplanarEqualSize: false,
        multiplanarShowRender: 1,
        multiplanarPadPixels: 4,
        scrollRequiresFocus: true,
        dragAndDropEnabled: false,
        loadingText: "",
        logLevel: "error",
        viewModeHotKey: "",
        clipPlaneHotKey: "",
        cycleClipPlaneHotKey: "",
        isClipAllVolumes: false,
      });
      await this.nv.attachToCanvas(this.canvas, true);
      await this.nv.loadFromArrayBuffer(await unpack(`image-${this.number}`), "image.nii");
      const image = this.nv.volumes[0];
      image.cal_min = 0;
      image.cal_max = 255;
      await this.load(method);
      this.nv.onLocationChange = (where) => this.located(where);
      this.nv.setRenderAzimuthElevation(120, 15);
    }
    async load(name) {
      while (this.nv.volumes.length > 1) this.nv.removeVolume(this.nv.volumes[1]);
      this.labels = this.visit.labels[name]?.labels ?? [];
      this.method = name;
      if (this.visit.labels[name]) {
        await this.nv.loadFromArrayBuffer(await unpack(this.visit.labels[name].id), "labels.nii");
      }
      if (data.truth && this.visit.labels.truth && name !== "truth") this.hasTruth = true;
      this.paint();
    }
    entryOf(value) {
      return rowOf.get(`${this.session}\n${this.method}\n${this.labels[value - 1]}`) ?? null;
    }
    valueOf(entry) {
      return entry.method === this.method ? this.labels.indexOf(entry.label) + 1 : 0;
    }
    paint() {
      const overlay = this.nv.volumes[1];
      if (!overlay) return this.nv.updateGLVolume();
      const colors = [[0, 0, 0]];
      const names = [""];
      this.labels.forEach((label, index) => {
        const entry = this.entryOf(index + 1);
        const color = entry && (colorBy === "change" && entry.changeColor ? entry.changeColor : entry.color);
        colors.push(rgb(color ?? "#ffffff"));
        names.push(String(label));
      });
      overlay.setColormapLabel({
        R: colors.map((c) => c[0]), G: colors.map((c) => c[1]), B: colors.map((c) => c[2]),
        A: colors.map((_, index) => (index ? 255 : 0)), I: colors.map((_, index) => index), labels: names,
      });
      overlay.opacity = { outline: 0.08, filled: 0.55, off: 0 }[show];
      this.nv.opts.atlasOutline = show === "outline" ? 1 : 0;
      this.nv.updateGLVolume();
    }
    located(where) {
      const byHand = this.canvas.matches(":focus");
      if (!byHand) return;
      for (const other of viewers) {
        if (other === this) continue;
        other.nv.scene.crosshairPos = other.nv.mm2frac([...where.mm].slice(0, 3));
        other.nv.drawScene();
      }
      const position = ["x", "y", "z"].map((axis, at) => `${axis} ${Math.round(where.mm[at])}`).join(", ");
      const value = Math.round(where.values[1]?.value ?? 0);
      const entry = value > 0 ? this.entryOf(value) : null;
      if (entry && entry !== selected) mark(entry);
      else if (!entry && selected) mark(null);
      say(entry ? `${describe(entry)} · ${position} mm` : `No lesion here · ${position} mm`);
    }
  }

  try {
    bench.dataset.viewer = "loading";
    const program = document.createElement("script");
    program.textContent = new TextDecoder().decode(await unpack("niivue"));
    document.head.append(program);
    const started = data.visits.map((visit, number) => new Viewer(visit, number));
    for (const viewer of started) await viewer.start();
    viewers = started;
    for (const viewer of viewers) {
      viewer.nv.broadcastTo(viewers.filter((v) => v !== viewer).map((v) => v.nv), { "3d": true, zoomPan: true, crosshair: false });
    }
  } catch (error) {
    console.warn(error);
    return fallBack("The 3D viewer could not start in this browser.");
  }

  const press = (group, value) => {
    for (const button of bench.querySelectorAll(`[data-${group}]`)) {
      button.setAttribute("aria-pressed", String(button.dataset[group] === value));
    }
  };
  const views = { axial: 0, coronal: 1, sagittal: 2, four: 3, render: 4 };
  const setView = (name) => {
    for (const { nv } of viewers) nv.setSliceType(views[name]);
    press("view", name);
  };
  const setShow = (name) => {
    show = name;
    for (const viewer of viewers) viewer.paint();
    press("show", name);
  };
  const setColorBy = (name) => {
    colorBy = name;
    for (const viewer of viewers) viewer.paint();
    press("colorby", name);
    for (const entry of data.rows) {
      entry.element.querySelector(".swatch").style.background = (name === "change" && entry.changeColor) || entry.color;
    }
  };
  for (const button of bench.querySelectorAll("[data-view]")) button.addEventListener("click", () => setView(button.dataset.view));
  for (const button of bench.querySelectorAll("[data-show]")) button.addEventListener("click", () => setShow(button.dataset.show));
  for (const button of bench.querySelectorAll("[data-colorby]")) button.addEventListener("click", () => setColorBy(button.dataset.colorby));
  filters.elements.method?.addEventListener("change", (event) => setMethod(event.target.value));
  filters.addEventListener("reset", () => setTimeout(() => {
    if (method !== data.methods[0]) setMethod(data.methods[0]);
  }));

  for (const viewer of viewers) {
    viewer.canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
        PageUp: [0, 0, 1], PageDown: [0, 0, -1] }[event.key];
      if (!move) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      viewer.nv.moveCrosshairInVox(...move);
    }, { capture: true });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const names = ["four", "axial", "coronal", "sagittal", "render"];
    if (/^[1-5]$/.test(event.key)) setView(names[Number(event.key) - 1]);
    else if (event.key === "o") setShow({ outline: "filled", filled: "off", off: "outline" }[show]);
    else if (event.key === "n") step(1);
    else if (event.key === "p") step(-1);
  });

  setView("four");
  setShow("outline");
  if (data.changes) setColorBy("change");
  bench.dataset.viewer = "ready";
  say("Click a lesion in the scan or a row of the table.");
  window.lesionwise = { viewers, goTo, rows: data.rows, get selected() { return selected; } };
})();
