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
    markFinding(entry);
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
    only(null);
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
      viewer.active = same ? viewer.valueOf(same) : 0;
      viewer.paint();
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
  // A tile shows only the lesions of its kind, in the findings and in both tables.
  const tiles = [...document.querySelectorAll("[data-only]")];
  const only = (state) => {
    for (const tile of tiles) tile.setAttribute("aria-pressed", String(tile.dataset.only === state));
    let shown = 0;
    const findings = [...document.querySelectorAll(".finding")];
    for (const each of findings) {
      each.hidden = state !== null && each.dataset.state !== state;
      shown += each.hidden ? 0 : 1;
    }
    const count = document.getElementById("findings-count");
    if (count) count.textContent = findings.length ? `${shown === findings.length ? "" : `${shown} of `}${findings.length} ${findings.length === 1 ? "lesion" : "lesions"}` : "";
    for (const row of document.querySelectorAll("#change-table tbody tr")) {
      row.hidden = state !== null && row.dataset.state !== state;
    }
  };
  for (const tile of tiles) {
    tile.addEventListener("click", () => {
      const state = tile.getAttribute("aria-pressed") === "true" ? null : tile.dataset.only;
      only(state);
      const field = filters.elements.state;
      if (!field) return;
      field.value = [...field.options].some((option) => option.value === state) ? state : "";
      filters.dispatchEvent(new Event("change"));
    });
  }
  only(null);
  filters.addEventListener("reset", () => only(null));

  for (const row of document.querySelectorAll("#change-table tr[data-to-label], .finding")) {
    const target = () => rowOf.get(`${row.dataset.toSession}\n${data.methods[0]}\n${row.dataset.toLabel}`);
    if (!target()) continue;
    row.dataset.goto = "";
    const go = () => {
      goTo(target());
      if (!row.classList.contains("finding")) bench.scrollIntoView({ block: "nearest" });
    };
    row.addEventListener("click", go);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
  }
  const markFinding = (entry) => {
    for (const each of document.querySelectorAll(".finding")) {
      const here = entry && each.dataset.toSession === entry.session && each.dataset.toLabel === String(entry.label);
      if (here) each.setAttribute("aria-current", "true");
      else each.removeAttribute("aria-current");
    }
  };
  const makeFirstReachable = () => {
    const rows = visible();
    if (rows.length && !rows.some((row) => row.tabIndex === 0)) rows[0].tabIndex = 0;
  };
  table.addEventListener("filtered", makeFirstReachable);
  makeFirstReachable();

  // On paper the pictures come first and the long table last.
  const long = document.getElementById("findings") ? document.getElementById("lesions") : bench;
  const home = long.nextSibling;
  addEventListener("beforeprint", () => long.parentElement.append(long));
  addEventListener("afterprint", () => long.parentElement.insertBefore(long, home));

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

  // Slices with lines along the voxels' faces of the plane that is seen. A line as wide as a voxel,
  // or one along the faces across the plane, would hide lesions on thick slices.
  const OUTLINES = `#version 300 es
    precision highp int;
    precision highp float;
    uniform highp sampler3D volume;
    uniform highp sampler3D overlay;
    uniform int axCorSag;
    uniform float overlays;
    uniform float opacity;
    uniform float overlayOutlineWidth;
    uniform float overlayAlphaShader;
    in vec3 texPos;
    out vec4 color;
    ivec3 size;
    vec4 lesion(ivec3 at) {
      if (any(lessThan(at, ivec3(0))) || any(greaterThanEqual(at, size))) return vec4(0.0);
      return texelFetch(overlay, at, 0);
    }
    bool same(vec4 a, vec4 b) { return (a.a > 0.0) == (b.a > 0.0) && (a.a == 0.0 || a.rgb == b.rgb); }
    void main() {
      color = vec4(texture(volume, texPos).rgb, opacity);
      if (overlays < 0.5) return;
      size = textureSize(overlay, 0);
      vec3 place = texPos * vec3(size);
      vec3 pixel = max(fwidth(place), vec3(1e-6));
      ivec3 at = clamp(ivec3(floor(place)), ivec3(0), size - 1);
      vec4 own = lesion(at);
      if (overlayOutlineWidth <= 0.0) {
        if (own.a > 0.0) color.rgb = mix(color.rgb, own.rgb, overlayAlphaShader);
        return;
      }
      ivec3 side[2];
      side[0] = axCorSag == 2 ? ivec3(0, 1, 0) : ivec3(1, 0, 0);
      side[1] = axCorSag == 0 ? ivec3(0, 1, 0) : ivec3(0, 0, 1);
      vec3 inside = place - vec3(at);
      vec4 line = vec4(0.0);
      for (int u = -1; u <= 1; u++) for (int v = -1; v <= 1; v++) {
        if (u == 0 && v == 0) continue;
        ivec3 step = u * side[0] + v * side[1];
        vec3 far = vec3(0.0);
        for (int axis = 0; axis < 3; axis++) {
          if (step[axis] > 0) far[axis] = (1.0 - inside[axis]) / pixel[axis];
          if (step[axis] < 0) far[axis] = inside[axis] / pixel[axis];
        }
        vec4 other = lesion(at + step);
        if (same(own, other)) continue;
        // around a lesion the line runs outside of it; two that touch share its width
        bool touching = own.a > 0.0 && other.a > 0.0;
        vec4 drawn = touching ? own : other;
        int bits = int(round(drawn.r * 255.0));
        float width = overlayOutlineWidth * ((bits & 1) == 1 ? 2.0 : 1.0) * (touching ? 0.5 : 1.0);
        if (own.a > 0.0 && !touching) continue;
        if (length(far) < width) line = vec4(drawn.rgb, 1.0);
      }
      color.rgb = mix(color.rgb, line.rgb, line.a);
    }`;

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
      this.nv.setCustomSliceShader(OUTLINES);
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
      this.active ??= 0;
      this.labels.forEach((label, index) => {
        const entry = this.entryOf(index + 1);
        const color = entry && (colorBy === "change" && entry.changeColor ? entry.changeColor : entry.color);
        // The last bits tell lesions of one color apart and mark the one that was chosen.
        const [r, g, b] = rgb(color ?? "#ffffff");
        colors.push([(r & ~1) | (index + 1 === this.active ? 1 : 0), g, (b & ~3) | (index & 3)]);
        names.push(String(label));
      });
      overlay.setColormapLabel({
        R: colors.map((c) => c[0]), G: colors.map((c) => c[1]), B: colors.map((c) => c[2]),
        A: colors.map((_, index) => (index ? 255 : 0)), I: colors.map((_, index) => index), labels: names,
      });
      overlay.opacity = show === "off" ? 0 : 1;
      this.nv.overlayOutlineWidth = show === "outline" ? 1.6 * (this.nv.uiData.dpr || 1) : 0;
      this.nv.overlayAlphaShader = show === "filled" ? 0.55 : 1;
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
  let view = "axial";
  const setView = (name) => {
    view = name;
    // as wide and as high as what is seen, so that the scan and not black fills it
    const [x, y, z] = [0, 1, 2].map((axis) => Math.max(...data.visits.map((visit) => visit.size_mm[axis])));
    const shape = { axial: [x, y], coronal: [x, z], sagittal: [y, z], four: [x + y, y + z], render: [1, 1] }[name];
    bench.style.setProperty("--wide", shape[0]);
    bench.style.setProperty("--high", shape[1]);
    for (const { nv } of viewers) nv.setSliceType(views[name]);
    press("view", name);
  };
  const visits = [...bench.querySelectorAll("[data-visit]")];
  const shownVisits = new Set(data.visits.map((_, number) => number).slice(-2));
  const setVisits = () => {
    for (const button of visits) button.setAttribute("aria-pressed", String(shownVisits.has(Number(button.dataset.visit))));
    for (const figure of bench.querySelectorAll("[data-canvas]")) {
      figure.hidden = visits.length > 0 && !shownVisits.has(Number(figure.dataset.canvas));
    }
    bench.style.setProperty("--shown", visits.length ? shownVisits.size : data.visits.length);
    for (const { nv } of viewers) nv.resizeListener?.();
  };
  for (const button of visits) {
    button.addEventListener("click", () => {
      const number = Number(button.dataset.visit);
      if (!shownVisits.has(number)) shownVisits.add(number);
      else if (shownVisits.size > 1) shownVisits.delete(number);
      setVisits();
      setView(view);
    });
  }
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
    const names = ["axial", "coronal", "sagittal", "render", "four"];
    if (/^[1-5]$/.test(event.key)) setView(names[Number(event.key) - 1]);
    else if (event.key === "o") setShow({ outline: "filled", filled: "off", off: "outline" }[show]);
    else if (event.key === "n") step(1);
    else if (event.key === "p") step(-1);
  });

  setVisits();
  setView("axial");
  setShow("outline");
  if (data.changes) setColorBy("change");
  window.lesionwise = { viewers, goTo, rows: data.rows, get selected() { return selected; } };
  const start = data.start && rowOf.get(`${data.start.session}\n${data.start.method}\n${data.start.label}`);
  if (start) await goTo(start);
  else say("No lesion was found. Click into the scan to look around.");
  bench.dataset.viewer = "ready";
})();
