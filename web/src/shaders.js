// Points as discs, shaded by their depth.

const points = /* glsl */ `
precision highp float;
precision highp int;
in vec4 place;    // position in the cube, label of the scan
in vec4 color;    // red, green, blue, score
in vec2 before;   // label before purification, margin
in vec4 named;    // label (two bytes), score, margin: as they are now
in vec4 asked;    // object (two bytes), heat
uniform mat4 modelViewMatrix, projectionMatrix, modelMatrix;
uniform int mode;
uniform float focal, spacing, least, scale, split;
uniform vec3 clipLow, clipHigh;
uniform int selected, hovered;
uniform sampler2D labels, heats, objects;
uniform vec3 plain;
flat out vec3 shade;

vec4 labelled(float label) {
  int i = int(label + 0.5);
  return texelFetch(labels, ivec2(i & 255, i >> 8), 0);
}
vec3 hot(float value) { return texelFetch(heats, ivec2(int(value + 0.5), 0), 0).rgb; }

void main() {
  vec4 world = modelMatrix * vec4(place.xyz, 1.0);
  vec4 seen = modelViewMatrix * vec4(place.xyz, 1.0);
  gl_Position = projectionMatrix * seen;
  float depth = max(-seen.z, 1e-9);
  gl_PointSize = clamp(max(spacing * focal / depth * 1.9, least) * scale, 1.0, 64.0);
  float label = named.x + 256.0 * named.y;
  bool left = mode == 2 && gl_Position.x / gl_Position.w * 0.5 + 0.5 < split;
  if (left) label = before.x;
  vec4 own = labelled(label);
  int object = int(asked.x + 256.0 * asked.y + 0.5);
  vec3 scan = color.rgb / 255.0;
  float grey = dot(scan, vec3(0.3, 0.59, 0.11));
  if (mode == 0) shade = scan;
  else if (mode == 1 || mode == 2) shade = own.rgb * (0.62 + 0.5 * grey);
  else if (mode == 3) shade = object == 0 ? vec3(0.25 + 0.4 * grey) : texelFetch(objects, ivec2(object & 255, object >> 8), 0).rgb * (0.7 + 0.4 * grey);
  else if (mode == 4) shade = hot(named.z);
  else if (mode == 5) shade = hot(named.w);
  else {
    float t = asked.z / 255.0;
    shade = mix(vec3(0.16 + 0.42 * grey) * vec3(0.93, 0.96, 1.04), hot(asked.z), smoothstep(0.12, 0.62, t));
  }
  if (object != 0 && object == selected) shade = mix(shade, vec3(1.0), 0.16);
  else if (object != 0 && object == hovered) shade = mix(shade, vec3(1.0), 0.1);
  else if (selected != 0 && mode != 6) shade = mix(shade, plain, 0.34);
  bool hidden = own.a < 0.5 || any(lessThan(world.xyz, clipLow)) || any(greaterThan(world.xyz, clipHigh));
  if (hidden) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
}`;

export const drawPoints = {
  vertex: points,
  fragment: /* glsl */ `
precision highp float;
flat in vec3 shade;
out vec4 result;
void main() {
  vec2 at = gl_PointCoord * 2.0 - 1.0;
  if (dot(at, at) > 1.0) discard;
  result = vec4(shade, 1.0);
}`,
};

// The number of the point under the pointer, one more than its index.
export const pickPoints = {
  vertex: points
    .replace("flat out vec3 shade;", "flat out vec3 shade;\nuniform float first;\nflat out vec4 code;")
    .replace(/\}$/, `
  uint id = uint(first + 0.5) + uint(gl_VertexID) + 1u;
  code = vec4(id & 255u, (id >> 8) & 255u, (id >> 16) & 255u, id >> 24) / 255.0;
}`),
  fragment: /* glsl */ `
precision highp float;
flat in vec4 code;
out vec4 result;
void main() {
  vec2 at = gl_PointCoord * 2.0 - 1.0;
  if (dot(at, at) > 1.0) discard;
  result = code;
}`,
};

// Edges are darkened where neighbours lie in front: without normals, this shows shapes.
export const shadeDepth = {
  vertex: /* glsl */ `
in vec3 position;
out vec2 at;
void main() {
  at = position.xy * 0.5 + 0.5;
  gl_Position = vec4(position.xy, 0.0, 1.0);
}`,
  fragment: /* glsl */ `
precision highp float;
in vec2 at;
uniform sampler2D picture, depths;
uniform vec2 pixel;
uniform float near, far, strength;
uniform vec3 back, backFar;
out vec4 result;
float logDepth(vec2 p) {
  float d = texture(depths, p).r;
  if (d >= 1.0) return 60.0;
  float z = 2.0 * d - 1.0;
  return log2(2.0 * near * far / (far + near - z * (far - near)));
}
void main() {
  vec4 own = texture(picture, at);
  vec3 ground = mix(back, backFar, smoothstep(0.0, 0.9, distance(at, vec2(0.5, 0.55))));
  if (own.a < 0.5) { result = vec4(ground, 1.0); return; }
  float depth = logDepth(at), sum = 0.0;
  for (int i = 0; i < 8; i++) {
    float turn = float(i) * 0.7853982;
    sum += clamp(depth - logDepth(at + pixel * vec2(cos(turn), sin(turn))), 0.0, 0.06);
  }
  result = vec4(own.rgb * exp(-strength * sum), 1.0);
}`,
};
