/* The page: which scenes are shown, at which step, with which classes, from where. */

const byId = (id) => document.getElementById(id);
const config = JSON.parse(byId("config").textContent);
const { classes, colors } = config;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const canvas = byId("canvas");
const hidden = new Set(config.scenes.every((scene) => scene.frames === 1) ? [UNKNOWN] : []);
const state = { start: 0, beside: Math.min(config.beside, config.scenes.length), moment: Infinity, focus: null, playing: 0 };
const first = { yaw: (-142 * Math.PI) / 180, pitch: (config.flat ? 40 : 27) * (Math.PI / 180), zoom: 1, pan: [0, 0, 0] };
let goal = structuredClone(first), camera = structuredClone(first);
let painter = null, tiles = [], turning = false, drawing = 0, lastTime = 0;

const nameOf = (label) => (label === UNKNOWN ? "not known" : classes[label]);
const colorOf = (label) => (label === UNKNOWN ? [205, 210, 218] : colors[label]);
const shownTable = () => Uint8Array.from({ length: 256 }, (_, label) => (label > 0 && !hidden.has(label) ? 1 : 0));
const longest = () => Math.max(...tiles.map((tile) => tile.scene.frames));

/* ---- scenes ---- */

/** Show `beside` scenes from `start` on; decoding is kept. */
async function show(start) {
  state.start = Math.max(0, Math.min(start, config.scenes.length - 1));
  const scenes = config.scenes.slice(state.start, state.start + state.beside);
  for (const scene of scenes) scene.labels ??= decodeFrames(scene.data, scene.shape[0] * scene.shape[1] * scene.shape[2]);
  const labels = await Promise.all(scenes.map((scene) => scene.labels));
  if (scenes[0] !== config.scenes[state.start]) return; // another choice came in between
  if (painter) tiles.forEach((tile) => tile.mesh && dropMesh(painter, tile.mesh));
  tiles = scenes.map((scene, n) => {
    const frames = labels[n];
    return { scene, frames, frame: -1, mesh: null, box: occupiedBox(frames[frames.length - 1], scene.shape) };
  });
  layOut();
  fillControls();
  rebuild();
}

/** Make every tile's faces and light anew where its step or the classes changed. */
function rebuild(all = true) {
  const last = longest() - 1, at = Math.min(state.moment, last), shown = shownTable();
  for (const tile of tiles) {
    const frame = last ? Math.round((at * (tile.scene.frames - 1)) / last) : 0;
    if (frame === tile.frame && !all) continue;
    tile.frame = frame;
    tile.counts = countLabels(tile.frames[frame]);
    if (!painter) continue;
    const { shape } = tile.scene, labels = tile.frames[frame];
    tile.mesh = uploadMesh(painter, buildFaces(labels, shape, shown), buildLight(labels, shape, shown), tile.mesh);
  }
  fillLegend();
  const faces = tiles.reduce((sum, tile) => sum + (tile.mesh ? tile.mesh.count : 0), 0);
  byId("status").textContent = `${sceneFacts(tiles[0].scene)}; ${faces.toLocaleString("en")} faces drawn`;
  byId("frame").value = at;
  byId("moment").textContent = tiles[0].scene.captions[tiles[0].frame] ?? `step ${at + 1} of ${last + 1}`;
  Object.assign(byId("stage").dataset, { faces, step: at, ready: "1" });
  draw();
}

const sceneFacts = ({ shape, voxel_m }) => `${shape.join(" × ")} voxels of ${voxel_m} m`;

function fillControls() {
  const several = config.scenes.length > 1, end = state.start + tiles.length;
  byId("scenes").hidden = !several;
  byId("scene").value = state.start;
  byId("back").disabled = state.start === 0;
  byId("next").disabled = end >= config.scenes.length;
  byId("timeline").hidden = longest() < 2;
  byId("frame").max = longest() - 1;
  const figures = tiles.filter((tile) => tile.scene.picture).map(({ scene }) => {
    const figure = document.createElement("figure"), image = new Image(), caption = document.createElement("figcaption");
    image.src = scene.picture;
    image.alt = caption.textContent = `Camera of ${scene.name}`;
    figure.append(image, caption);
    return figure;
  });
  byId("pictures").replaceChildren(...figures);
  byId("pictures").hidden = !figures.length;
}

/* ---- legend ---- */

function fillLegend() {
  const counts = new Float64Array(256);
  for (const tile of tiles) tile.counts.forEach((n, label) => { counts[label] += n; });
  const occurring = new Set();
  for (const tile of tiles) for (const frame of [tile.counts, (tile.last ??= countLabels(tile.frames.at(-1)))]) frame.forEach((n, label) => { if (n && label) occurring.add(label); });
  const order = [...occurring].sort((a, b) => (a === UNKNOWN) - (b === UNKNOWN) || tiles.reduce((s, t) => s + t.last[b] - t.last[a], 0) || a - b);
  const had = document.activeElement?.dataset?.label;
  byId("legend").replaceChildren(...order.map((label) => legendRow(label, counts[label])));
  if (had !== undefined) byId("legend").querySelector(`input[data-label="${had}"]`)?.focus();
}

function legendRow(label, count) {
  const row = document.createElement("li"), mark = document.createElement("label"), box = document.createElement("input");
  const swatch = document.createElement("i"), name = document.createElement("span"), number = document.createElement("b");
  const only = document.createElement("button");
  box.type = "checkbox";
  box.checked = !hidden.has(label);
  box.dataset.label = label;
  box.addEventListener("change", () => { if (box.checked) hidden.delete(label); else hidden.add(label); rebuild(); });
  swatch.style.background = `rgb(${colorOf(label).join(",")})`;
  name.textContent = nameOf(label);
  number.textContent = count.toLocaleString("en");
  only.type = "button";
  only.textContent = "only";
  only.title = `Hide all but ${nameOf(label)}`;
  only.addEventListener("click", () => setHidden((other) => other !== label));
  row.className = box.checked ? "" : "off";
  row.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") setFocus(label); });
  row.addEventListener("pointerleave", () => setFocus(null));
  mark.append(box, swatch, name, number);
  row.append(mark, only);
  return row;
}

function setHidden(rule) {
  for (let label = 1; label < 256; label += 1) if (rule(label)) hidden.add(label); else hidden.delete(label);
  rebuild();
}

/** Grey out all classes but one; null: none. */
function setFocus(label) {
  if (state.focus === label) return;
  state.focus = label;
  paintPalette();
  draw();
}

function paintPalette() {
  if (!painter) return;
  const rgba = new Uint8Array(1024);
  for (let label = 0; label < 256; label += 1) {
    const known = label < classes.length || label === UNKNOWN, focused = state.focus === null || state.focus === label;
    rgba.set([...(known ? colorOf(label) : [0, 0, 0]), focused ? 255 : 128], 4 * label);
  }
  setPalette(painter, rgba);
}

/* ---- drawing ---- */

/** Where each tile lies: columns and rows that give scenes the most room. */
function layOut() {
  const { clientWidth: width, clientHeight: height } = canvas, n = tiles.length || 1;
  const ratio = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const room = (c) => Math.min((width / c) * 0.8, height / Math.ceil(n / c));
  const columns = Array.from({ length: n }, (_, k) => k + 1).reduce((best, c) => (room(c) > room(best) + 1 ? c : best), 1);
  const rows = Math.ceil(n / columns), w = width / columns, h = height / rows, marks = [];
  tiles.forEach((tile, k) => {
    tile.rect = { left: (k % columns) * w, top: Math.floor(k / columns) * h, width: w, height: h };
    const part = { x: tile.rect.left, y: height - tile.rect.top - h, width: w, height: h };
    tile.part = Object.fromEntries(Object.entries(part).map(([key, value]) => [key, Math.round(value * ratio)]));
    const name = document.createElement("p");
    name.textContent = tile.scene.name;
    name.style.cssText = `left:${tile.rect.left}px;top:${tile.rect.top}px;max-width:${w}px`;
    marks.push(name);
  });
  const line = (css) => { const mark = document.createElement("i"); mark.style.cssText = css; marks.push(mark); };
  for (let c = 1; c < columns; c += 1) line(`left:${c * w}px;top:0;width:1px;height:100%`);
  for (let r = 1; r < rows; r += 1) line(`top:${r * h}px;left:0;height:1px;width:100%`);
  byId("tiles").replaceChildren(...marks);
  draw();
}

function draw() { drawing ||= requestAnimationFrame(paint); }

function paint(time) {
  const seconds = Math.min(0.1, (time - lastTime) / 1000 || 0.016);
  drawing = 0;
  lastTime = time;
  if (turning) goal.yaw += seconds * 0.4;
  const moving = follow(still ? 1 : 1 - Math.exp(-seconds * 14)) || turning;
  if (painter && tiles.length) {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    clearAll(painter);
    for (const tile of tiles) {
      tile.view = viewOf(camera, tile.box, tile.rect.width / tile.rect.height, first);
      if (tile.mesh) drawMesh(painter, tile.mesh, tile.view, tile.part, dark);
    }
  }
  if (moving) draw();
  else lastTime = 0;
}

/** Bring the camera a share nearer to its goal; whether it still moves. */
function follow(share) {
  const gaps = [goal.yaw - camera.yaw, goal.pitch - camera.pitch, Math.log(goal.zoom / camera.zoom), ...goal.pan.map((n, a) => n - camera.pan[a])];
  if (Math.max(...gaps.map(Math.abs)) < 1e-4) share = 1;
  camera.yaw += share * gaps[0];
  camera.pitch += share * gaps[1];
  camera.zoom *= Math.exp(share * gaps[2]);
  camera.pan = camera.pan.map((n, a) => n + share * gaps[3 + a]);
  return share < 1;
}

/* ---- the camera by hand ---- */

function turn(dx, dy) {
  goal.yaw -= dx;
  goal.pitch = Math.min(1.55, Math.max(-1.2, goal.pitch + dy));
  hideTip();
  draw();
}
function zoom(factor) {
  goal.zoom = Math.min(8, Math.max(0.03, goal.zoom * factor));
  hideTip();
  draw();
}
/** Move by pixels of the tile that was grabbed. */
function pan(dx, dy, tile = tiles[0]) {
  const { distance, radius, right, up } = tile.view, scale = (2 * distance * FIELD) / tile.rect.height / radius;
  goal.pan = goal.pan.map((n, a) => Math.min(1.5, Math.max(-1.5, n - (right[a] * dx - up[a] * dy) * scale)));
  hideTip();
  draw();
}
function reset() {
  const turns = 2 * Math.PI * Math.round((camera.yaw - first.yaw) / (2 * Math.PI)); // the shorter way round
  goal = structuredClone({ ...first, yaw: first.yaw + turns });
  hideTip();
  draw();
}

const pointers = new Map();
let travelled = 0;

const tileAt = (x, y) => tiles.find(({ rect: r }) => r && x >= r.left && x < r.left + r.width && y >= r.top && y < r.top + r.height);
const gather = () => {
  const [a, b = a] = [...pointers.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
};

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  if (!pointers.size) travelled = 0;
  pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
});
canvas.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  const before = gather();
  pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  const after = gather(), dx = after.x - before.x, dy = after.y - before.y;
  travelled += Math.abs(dx) + Math.abs(dy) + Math.abs(after.apart - before.apart);
  const tile = tileAt(after.x, after.y) ?? tiles[0];
  if (pointers.size > 1) {
    pan(dx, dy, tile);
    if (before.apart > 1 && after.apart > 1) zoom(before.apart / after.apart);
  } else if (event.shiftKey || event.buttons & 6) pan(dx, dy, tile);
  else turn(dx * 0.008, dy * 0.008);
});
canvas.addEventListener("pointerup", (event) => {
  if (pointers.size === 1 && travelled < 5 && event.button === 0) nameVoxel(event.offsetX, event.offsetY);
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("dblclick", reset);
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1))) * 0.0016));
}, { passive: false });

const hideTip = () => { byId("tip").hidden = true; };

/** Say what the voxel under a point is, and where. */
function nameVoxel(x, y) {
  const tile = tileAt(x, y);
  hideTip();
  if (!tile?.view) return;
  const { rect, view, scene } = tile, ray = [];
  const sx = (2 * (x - rect.left)) / rect.width - 1, sy = 1 - (2 * (y - rect.top)) / rect.height + view.shift;
  for (let a = 0; a < 3; a += 1) ray.push(view.forward[a] + FIELD * (sx * view.aspect * view.right[a] + sy * view.up[a]));
  const hit = firstHit(tile.frames[tile.frame], scene.shape, shownTable(), view.eye, ray);
  if (!hit) return;
  const place = hit.index.map((n, a) => (scene.origin_m[a] + (n + 0.5) * scene.voxel_m).toFixed(1)).join(", ");
  const tip = byId("tip");
  tip.textContent = `${nameOf(hit.label)} at ${place} m`;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(x + 12, canvas.clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, y - tip.offsetHeight - 8)}px`;
}

/* ---- steps, keys, buttons ---- */

function setMoment(moment) {
  const last = longest() - 1;
  state.moment = Math.max(0, Math.min(moment, last));
  rebuild(false);
}
function play() {
  clearInterval(state.playing);
  state.playing = state.playing ? 0 : setInterval(() => {
    const now = Math.min(state.moment, longest() - 1) + 1;
    if (now >= longest() - 1) play();
    setMoment(now);
  }, 220);
  if (state.playing && state.moment >= longest() - 1) setMoment(0);
  byId("play").textContent = state.playing ? "❚❚" : "▶";
}
function toggleTurn() {
  turning = !turning;
  byId("turn").setAttribute("aria-pressed", String(turning));
  draw();
}
function toggleTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  draw();
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  "+": () => zoom(0.85), "=": () => zoom(0.85), "-": () => zoom(1 / 0.85), 0: reset, t: toggleTurn, " ": play,
  ",": () => setMoment(Math.min(state.moment, longest() - 1) - 1), ".": () => setMoment(state.moment + 1),
  n: () => byId("next").click(), p: () => byId("back").click(),
};
document.addEventListener("keydown", (event) => {
  const free = event.target === canvas || event.target === document.body;
  if (event.ctrlKey || event.metaKey || event.altKey || !free || !tiles.length) return;
  const move = MOVES[event.key];
  if (move && event.shiftKey) pan(-40 * move[0], -40 * move[1]);
  else if (move) turn(-0.12 * move[0], -0.12 * move[1]);
  else if (KEYS[event.key] && (event.key !== " " || longest() > 1)) KEYS[event.key]();
  else return;
  event.preventDefault();
});
byId("back").addEventListener("click", () => show(state.start - state.beside));
byId("next").addEventListener("click", () => show(state.start + state.beside));
byId("scene").addEventListener("change", (event) => show(Number(event.target.value)));
byId("beside").addEventListener("change", (event) => { state.beside = Number(event.target.value); show(state.start); });
byId("frame").addEventListener("input", (event) => setMoment(Number(event.target.value)));
byId("play").addEventListener("click", play);
byId("turn").addEventListener("click", toggleTurn);
byId("reset").addEventListener("click", reset);
byId("theme").addEventListener("click", toggleTheme);
byId("all").addEventListener("click", () => setHidden(() => false));
byId("none").addEventListener("click", () => setHidden(() => true));

/* ---- start ---- */

function startPainter() {
  painter = createPainter(canvas);
  tiles.forEach((tile) => { tile.mesh = null; });
  paintPalette();
}
function fault(text) {
  byId("fault").textContent = text;
  byId("fault").hidden = false;
}

canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); painter = null; });
canvas.addEventListener("webglcontextrestored", () => { startPainter(); rebuild(); });
byId("scene").append(...config.scenes.map((scene, n) => new Option(scene.name, n)));
/** The scene that the page's address names, as viewer.html#scene-3 does; the first one is number 0. */
const asked = () => Number(/^#scene-(\d{1,6})$/.exec(location.hash)?.[1] ?? 0);
const counts = [1, 2, 3, 4, 6, 9].filter((n) => n <= config.scenes.length || n === state.beside);
if (!counts.includes(state.beside)) counts.push(state.beside);
byId("beside").append(...counts.map((n) => new Option(String(n), n, n === state.beside, n === state.beside)));
if (typeof DecompressionStream === "undefined") fault("This browser is too old to unpack the scenes (it has no DecompressionStream): open the page in a newer one.");
else {
  startPainter();
  if (!painter) fault("This browser has no WebGL2, which draws the scenes: switch on hardware acceleration or open the page in another browser. Classes and pictures are shown all the same.");
  new ResizeObserver(layOut).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const shown = () => show(asked()).catch((error) => fault(`The scenes can't be unpacked: ${error.message}`));
  addEventListener("hashchange", shown);
  shown();
}
