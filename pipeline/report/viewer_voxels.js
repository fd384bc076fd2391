/* Label volumes in memory: decoding, the faces between shown and not shown voxels, and the light that reaches a place.
   A volume is (X, Y, Z) with z fastest; the light is a texture (x, y, z) with x fastest. */

const UNKNOWN = 255; // not scored, or not drawn yet
const SUN = normalized([-0.34, -0.94, 1.05]); // towards the sun: to the right of the first view
const PAD = 12; // cells of light around a scene, so that shadows can fall beside it
const LARGEST_LIT = 600000; // voxels; beyond, light is worked out at half the resolution

function normalized(v) {
  const length = Math.hypot(...v);
  return v.map((n) => n / length);
}

/** All frames' labels from base64 of zlib of differences from frame to frame; the differences add up modulo 256. */
async function decodeFrames(text, voxels) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const labels = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let i = voxels; i < labels.length; i += 1) labels[i] += labels[i - voxels];
  return Array.from({ length: labels.length / voxels }, (_, t) => labels.subarray(t * voxels, (t + 1) * voxels));
}

function countLabels(labels) {
  const counts = new Uint32Array(256);
  for (let i = 0; i < labels.length; i += 1) counts[labels[i]] += 1;
  return counts;
}

/** Lowest and highest corner of what is occupied [voxels]; the whole grid where nothing is. */
function occupiedBox(labels, [X, Y, Z]) {
  const low = [X, Y, Z], high = [0, 0, 0];
  for (let x = 0, i = 0; x < X; x += 1) for (let y = 0; y < Y; y += 1) for (let z = 0; z < Z; z += 1, i += 1) {
    if (labels[i] === 0 || labels[i] === UNKNOWN) continue;
    if (x < low[0]) low[0] = x;
    if (y < low[1]) low[1] = y;
    if (z < low[2]) low[2] = z;
    if (x >= high[0]) high[0] = x + 1;
    if (y >= high[1]) high[1] = y + 1;
    if (z >= high[2]) high[2] = z + 1;
  }
  return high[0] ? { low, high } : { low: [0, 0, 0], high: [X, Y, Z] };
}

/** Faces between a shown voxel and one that isn't, two words each: x | y << 10 | z << 20, then
    class | direction << 8 | open << 11, where `open` has two bits a corner: 3 = no neighbour stands over it. */
function buildFaces(labels, [X, Y, Z], shown) {
  const step = [(Y + 2) * (Z + 2), Z + 2, 1]; // of a copy with a layer of air around it
  const solid = new Uint8Array((X + 2) * step[0]);
  for (let x = 0, i = 0; x < X; x += 1) for (let y = 0; y < Y; y += 1) {
    let at = (x + 1) * step[0] + (y + 1) * step[1] + 1;
    for (let z = 0; z < Z; z += 1, i += 1, at += 1) solid[at] = shown[labels[i]];
  }
  let faces = new Uint32Array(1 << 15), used = 0;
  for (let x = 0, i = 0; x < X; x += 1) for (let y = 0; y < Y; y += 1) {
    let at = (x + 1) * step[0] + (y + 1) * step[1] + 1;
    for (let z = 0; z < Z; z += 1, i += 1, at += 1) {
      if (!solid[at]) continue;
      for (let direction = 0; direction < 6; direction += 1) {
        const axis = direction >> 1, beyond = direction & 1 ? at - step[axis] : at + step[axis];
        if (solid[beyond]) continue;
        if (used + 2 > faces.length) {
          const longer = new Uint32Array(faces.length * 2);
          longer.set(faces);
          faces = longer;
        }
        faces[used] = x | (y << 10) | (z << 20);
        faces[used + 1] = labels[i] | (direction << 8) | (openness(solid, beyond, step, axis) << 11);
        used += 2;
      }
    }
  }
  return faces.slice(0, used);
}

/** Two bits a corner of the face under the cell `at`: corners (0,0), (1,0), (0,1), (1,1) along the next two axes. */
function openness(solid, at, step, axis) {
  const u = step[(axis + 1) % 3], v = step[(axis + 2) % 3];
  const left = solid[at - u], right = solid[at + u], below = solid[at - v], above = solid[at + v];
  const corner = (a, b, c) => (a && b ? 0 : 3 - a - b - c);
  return corner(left, below, solid[at - u - v]) | (corner(right, below, solid[at + u - v]) << 2) |
    (corner(left, above, solid[at - u + v]) << 4) | (corner(right, above, solid[at + u + v]) << 6);
}

/** Light by place: two bytes a cell, from the sky and from the sun.

    Light of one direction is carried down layer by layer (bilinear), what a solid cell stops is lost: shadows grow
    softer with distance. The sky is nine such directions. `size`, `cell` [voxels] and `pad` [cells] place the texture. */
function buildLight(labels, shape, shown) {
  const cell = shape[0] * shape[1] * shape[2] > LARGEST_LIT ? 2 : 1;
  const [W, H, D] = [0, 1, 2].map((a) => Math.ceil(shape[a] / cell) + 2 * (a < 2 ? PAD : 1));
  const solid = solidShare(labels, shape, shown, cell, [W, H, D]);
  const sky = new Float32Array(W * H * D), sun = new Float32Array(W * H * D);
  carry(solid, [W, H, D], [0, 0], 0.2, sky);
  for (let k = 0; k < 8; k += 1) {
    const angle = (k * Math.PI) / 4, reach = k % 2 ? 1.6 : 0.7;
    carry(solid, [W, H, D], [reach * Math.cos(angle), reach * Math.sin(angle)], 0.1, sky);
  }
  carry(solid, [W, H, D], [SUN[0] / SUN[2], SUN[1] / SUN[2]], 1, sun);
  const bytes = new Uint8Array(2 * W * H * D);
  for (let i = 0; i < sky.length; i += 1) {
    bytes[2 * i] = 255 * Math.min(1, outside(sky, solid, i, W, H, D));
    bytes[2 * i + 1] = 255 * Math.min(1, outside(sun, solid, i, W, H, D));
  }
  return { bytes, size: [W, H, D], cell, pad: PAD };
}

function solidShare(labels, [X, Y, Z], shown, cell, [W, H, D]) {
  const solid = new Float32Array(W * H * D), part = 1 / (cell * cell * cell);
  for (let x = 0, i = 0; x < X; x += 1) for (let y = 0; y < Y; y += 1) {
    const column = ((y / cell) | 0) * W + ((x / cell) | 0) + PAD * W + PAD;
    for (let z = 0; z < Z; z += 1, i += 1) if (shown[labels[i]]) solid[column + (((z / cell) | 0) + 1) * W * H] += part;
  }
  return solid;
}

/** Add `weight` of the light that comes from (shift, 1) [cells] to every cell of `sum`. */
function carry(solid, [W, H, D], shift, weight, sum) {
  const edge = 3, row = W + 2 * edge;
  const ix = Math.floor(shift[0]), iy = Math.floor(shift[1]), fx = shift[0] - ix, fy = shift[1] - iy;
  let above = new Float32Array(row * (H + 2 * edge)).fill(1), here = above.slice();
  for (let z = D - 1; z >= 0; z -= 1) {
    for (let y = 0; y < H; y += 1) {
      let at = (y + edge) * row + edge, from = at + iy * row + ix, i = (z * H + y) * W;
      for (let x = 0; x < W; x += 1, at += 1, from += 1, i += 1) {
        const light = (above[from] * (1 - fx) + above[from + 1] * fx) * (1 - fy) +
          (above[from + row] * (1 - fx) + above[from + row + 1] * fx) * fy;
        sum[i] += weight * light;
        here[at] = light * (1 - solid[i]);
      }
    }
    [above, here] = [here, above];
  }
}

/** Within a solid cell the mean of its open neighbours, so that smoothing doesn't pull darkness out of walls. */
function outside(light, solid, i, W, H, D) {
  if (solid[i] < 0.5) return light[i];
  const x = i % W, y = ((i / W) | 0) % H, z = (i / (W * H)) | 0;
  let sum = 0, open = 0;
  const take = (inside, j) => { if (inside && solid[j] < 0.5) { sum += light[j]; open += 1; } };
  take(x > 0, i - 1); take(x < W - 1, i + 1);
  take(y > 0, i - W); take(y < H - 1, i + W);
  take(z > 0, i - W * H); take(z < D - 1, i + W * H);
  return open ? sum / open : light[i];
}

/** The first shown voxel on a ray [voxels], or null: {index: [x, y, z], label}. Amanatides and Woo's traversal. */
function firstHit(labels, shape, shown, origin, ray) {
  let near = 0, far = Infinity;
  for (let a = 0; a < 3; a += 1) {
    const t = [(0 - origin[a]) / ray[a], (shape[a] - origin[a]) / ray[a]].sort((p, q) => p - q);
    near = Math.max(near, t[0]);
    far = Math.min(far, t[1]);
  }
  if (!(near < far)) return null;
  const start = origin.map((o, a) => o + (near + 1e-6) * ray[a]);
  const at = start.map((p, a) => Math.min(shape[a] - 1, Math.max(0, Math.floor(p))));
  const next = at.map((n, a) => (n + (ray[a] > 0 ? 1 : 0) - origin[a]) / ray[a]);
  for (;;) {
    const label = labels[(at[0] * shape[1] + at[1]) * shape[2] + at[2]];
    if (shown[label]) return { index: at, label };
    const a = next[0] < next[1] ? (next[0] < next[2] ? 0 : 2) : next[1] < next[2] ? 1 : 2;
    at[a] += Math.sign(ray[a]);
    next[a] += Math.abs(1 / ray[a]);
    if (at[a] < 0 || at[a] >= shape[a]) return null;
  }
}
