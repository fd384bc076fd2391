/* Drawing with WebGL2: one canvas, one context, a part of it a scene. Lengths are voxels, z is up. */

const FIELD = Math.tan((15 * Math.PI) / 180); // of half the vertical field of view
const FACE_SHADER = `#version 300 es
layout(location = 0) in uvec2 face;
uniform mat4 clip;
uniform vec3 light_size;
uniform vec2 light_place;
uniform sampler2D palette;
flat out vec4 color; flat out vec4 open; flat out vec3 normal;
out vec2 at; out vec3 lit;
void main() {
  vec3 voxel = vec3(face.x & 1023u, (face.x >> 10) & 1023u, face.x >> 20);
  int label = int(face.y & 255u), direction = int((face.y >> 8) & 7u), axis = direction >> 1;
  bool back = (direction & 1) == 1;
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  vec3 offset = vec3(0.0);
  normal = vec3(0.0);
  normal[axis] = back ? -1.0 : 1.0;
  at = back ? vec2(1.0 - corner.x, corner.y) : corner;
  offset[axis] = back ? 0.0 : 1.0;
  offset[(axis + 1) % 3] = at.x;
  offset[(axis + 2) % 3] = at.y;
  vec3 place = voxel + offset;
  lit = ((place + 0.55 * normal) / light_place.x + vec3(light_place.yy, 1.0)) / light_size;
  uvec4 bits = (uvec4(face.y) >> uvec4(11u, 13u, 15u, 17u)) & 3u;
  open = vec4(bits) / 3.0;
  color = texelFetch(palette, ivec2(label, 0), 0);
  float grain = fract(sin(dot(voxel, vec3(12.9898, 78.233, 37.719))) * 43758.5453);
  color.rgb *= 0.975 + 0.05 * grain;
  gl_Position = clip * vec4(place, 1.0);
}`;
const FACE_COLORS = `#version 300 es
precision highp float;
precision highp sampler3D;
flat in vec4 color; flat in vec4 open; flat in vec3 normal;
in vec2 at; in vec3 lit;
uniform sampler3D light;
uniform vec3 sun;
out vec4 result;
void main() {
  vec2 reach = texture(light, lit).rg;
  float corner = mix(mix(open.x, open.y, at.x), mix(open.z, open.w, at.x), at.y);
  vec3 sky = mix(vec3(0.60, 0.56, 0.54), vec3(0.56, 0.62, 0.70), 0.5 + 0.5 * normal.z);
  float direct = max(dot(normal, sun), 0.0) * reach.g;
  float open_sky = min(1.0, reach.r / (0.62 + 0.38 * max(normal.z, 0.0))); // a wall sees half of it
  vec3 shade = sky * (0.36 + 0.64 * open_sky) * (0.6 + 0.4 * corner) + vec3(0.62, 0.57, 0.48) * direct;
  vec2 width = fwidth(at);
  vec2 side = smoothstep(vec2(0.0), 1.3 * width, min(at, 1.0 - at));
  float large = clamp((1.0 / max(width.x, width.y) - 3.0) / 10.0, 0.0, 1.0);
  float edge = 1.0 - 0.15 * large * (1.0 - min(side.x, side.y));
  vec3 shown = color.rgb * shade * edge;
  if (color.a < 0.75) shown = mix(shown, vec3(0.55 * shade.g * edge), 0.94);
  result = vec4(min(shown, 1.0), 1.0);
}`;
const FLOOR_SHADER = `#version 300 es
uniform mat4 clip;
uniform vec4 floor_box;
uniform vec3 light_size;
uniform vec2 light_place;
uniform float height;
out vec2 at; out vec3 lit;
void main() {
  at = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  vec3 place = vec3(mix(floor_box.xy, floor_box.zw, at), height);
  lit = ((place - vec3(0.0, 0.0, 0.5)) / light_place.x + vec3(light_place.yy, 1.0)) / light_size;
  gl_Position = clip * vec4(place - vec3(0.0, 0.0, 0.02), 1.0);
}`;
const FLOOR_COLORS = `#version 300 es
precision highp float;
precision highp sampler3D;
in vec2 at; in vec3 lit;
uniform sampler3D light;
uniform float depth;
out vec4 result;
void main() {
  vec2 reach = texture(light, lit).rg, border = smoothstep(vec2(0.0), vec2(0.12), min(at, 1.0 - at));
  float shadow = (0.6 * (1.0 - reach.g) + 0.45 * (1.0 - reach.r)) * border.x * border.y;
  result = vec4(0.0, 0.0, 0.0, min(0.8, depth * shadow));
}`;

/** The context and everything that outlives a scene; null where the browser has no WebGL2. */
function createPainter(canvas) {
  const gl = canvas.getContext("webgl2", { alpha: true, antialias: true, premultipliedAlpha: true });
  if (!gl) return null;
  const painter = { gl, canvas, faces: program(gl, FACE_SHADER, FACE_COLORS), floor: program(gl, FLOOR_SHADER, FLOOR_COLORS) };
  painter.bare = gl.createVertexArray();
  painter.palette = gl.createTexture();
  return painter;
}

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(made));
  const places = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i += 1) {
    const { name } = gl.getActiveUniform(made, i);
    places[name] = gl.getUniformLocation(made, name);
  }
  return { made, places };
}

/** Colours by label: RGBA bytes, 256 of them; alpha below 0.75 greys a class out. */
function setPalette({ gl, palette }, rgba) {
  gl.bindTexture(gl.TEXTURE_2D, palette);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
  for (const key of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, key, gl.NEAREST);
}

/** A scene's faces and light on the GPU; `old` is used again where there is one. */
function uploadMesh({ gl }, faces, light, old) {
  const mesh = old || { array: gl.createVertexArray(), buffer: gl.createBuffer(), texture: gl.createTexture() };
  gl.bindVertexArray(mesh.array);
  gl.bindBuffer(gl.ARRAY_BUFFER, mesh.buffer);
  gl.bufferData(gl.ARRAY_BUFFER, faces, gl.DYNAMIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribIPointer(0, 2, gl.UNSIGNED_INT, 8, 0);
  gl.vertexAttribDivisor(0, 1);
  gl.bindVertexArray(null);
  gl.bindTexture(gl.TEXTURE_3D, mesh.texture);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage3D(gl.TEXTURE_3D, 0, gl.RG8, ...light.size, 0, gl.RG, gl.UNSIGNED_BYTE, light.bytes);
  for (const key of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_3D, key, gl.LINEAR);
  for (const key of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(gl.TEXTURE_3D, key, gl.CLAMP_TO_EDGE);
  return { ...mesh, count: faces.length / 2, light };
}

function dropMesh({ gl }, mesh) {
  gl.deleteVertexArray(mesh.array);
  gl.deleteBuffer(mesh.buffer);
  gl.deleteTexture(mesh.texture);
}

function clearAll({ gl, canvas }) {
  gl.disable(gl.SCISSOR_TEST);
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
}

/** Draw a mesh into a part of the canvas {x, y, width, height} [px, from below]; see `viewOf` for the view. */
function drawMesh({ gl, faces, floor, bare, palette }, mesh, view, part, dark) {
  gl.enable(gl.SCISSOR_TEST);
  gl.scissor(part.x, part.y, part.width, part.height);
  gl.viewport(part.x, part.y, part.width, part.height);
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.CULL_FACE);
  gl.activeTexture(gl.TEXTURE1);
  gl.bindTexture(gl.TEXTURE_2D, palette);
  gl.activeTexture(gl.TEXTURE0);
  gl.bindTexture(gl.TEXTURE_3D, mesh.texture);
  for (const { made, places } of [faces, floor]) {
    gl.useProgram(made);
    gl.uniformMatrix4fv(places.clip, false, view.clip);
    gl.uniform3fv(places.light_size, mesh.light.size);
    gl.uniform2f(places.light_place, mesh.light.cell, mesh.light.pad);
    gl.uniform1i(places.light, 0);
  }
  gl.useProgram(faces.made);
  gl.uniform3fv(faces.places.sun, SUN);
  gl.uniform1i(faces.places.palette, 1);
  gl.bindVertexArray(mesh.array);
  gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, mesh.count);
  if (view.eye[2] > view.box.low[2]) drawFloor(gl, floor, bare, view, mesh.light, dark);
}

/** The shadow that a scene throws on the plane it stands on. */
function drawFloor(gl, { made, places }, bare, { box }, light, dark) {
  const margin = light.pad * light.cell;
  gl.useProgram(made);
  gl.uniform4f(places.floor_box, box.low[0] - margin, box.low[1] - margin, box.high[0] + margin, box.high[1] + margin);
  gl.uniform1f(places.height, box.low[2]);
  gl.uniform1f(places.depth, dark ? 0.8 : 0.42);
  gl.bindVertexArray(bare);
  gl.disable(gl.CULL_FACE);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.depthMask(false);
  gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  gl.depthMask(true);
  gl.disable(gl.BLEND);
}

/** Where the camera stands for a scene's box: eye, axes and the matrix to clip space.

    camera: yaw, pitch [rad]; zoom: distance over the one from which the box fits at the first yaw and pitch; pan: the
    target's offset from the box's centre, over half its diagonal. Several scenes share one camera. */
function viewOf(camera, box, aspect, first) {
  const centre = box.low.map((n, a) => (n + box.high[a]) / 2);
  const radius = Math.hypot(...box.high.map((n, a) => (n - box.low[a]) / 2));
  const axes = axesOf(camera.yaw, camera.pitch);
  const fit = fitted(box, centre, axesOf(first.yaw, first.pitch), aspect), distance = camera.zoom * fit.distance;
  const target = centre.map((n, a) => n + camera.pan[a] * radius);
  const eye = target.map((n, a) => n - axes.forward[a] * distance);
  const near = Math.max(0.2, distance - 3 * radius), far = distance + 4 * radius;
  return { eye, ...axes, ...fit, distance, radius, box, aspect, clip: clipMatrix(eye, axes, aspect, fit.shift, near, far) };
}

function axesOf(yaw, pitch) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return { forward: [-cy * cp, -sy * cp, -sp], right: [-sy, cy, 0], up: [-cy * sp, -sy * sp, cp] };
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** The distance from which a box fits, and the lens's shift [half pictures] that puts its outline in the middle. */
function fitted(box, centre, { forward, right, up }, aspect) {
  const corners = Array.from({ length: 8 }, (_, k) => centre.map((n, a) => ((k >> a) & 1 ? box.high[a] : box.low[a]) - n));
  let distance = 1, shift = 0;
  for (let round = 0; round < 4; round += 1) {
    const ends = corners.map((q) => {
      const wide = Math.abs(dot(q, right)) / (FIELD * aspect), tall = dot(q, up) / FIELD, depth = dot(q, forward);
      return { enough: Math.max(wide, tall / (1 + shift), -tall / (1 - shift)) * 1.08 - depth, tall, depth };
    });
    distance = Math.max(1, ...ends.map((end) => end.enough));
    const heights = ends.map((end) => end.tall / (distance + end.depth));
    shift = Math.max(-0.5, Math.min(0.5, (Math.max(...heights) + Math.min(...heights)) / 2));
  }
  return { distance, shift };
}

/** Column-major, as WebGL takes it. */
function clipMatrix(eye, { forward, right, up }, aspect, shift, near, far) {
  const sx = 1 / (FIELD * aspect), sy = 1 / FIELD, a = (far + near) / (far - near), b = (2 * far * near) / (far - near);
  const matrix = new Float32Array(16);
  for (let c = 0; c < 3; c += 1) matrix.set([sx * right[c], sy * up[c] - shift * forward[c], a * forward[c], forward[c]], 4 * c);
  const depth = dot(forward, eye);
  matrix.set([-sx * dot(right, eye), -sy * dot(up, eye) + shift * depth, -a * depth - b, -depth], 12);
  return matrix;
}
