// The points: cubes of an octree, loaded and drawn by the size that they have on the screen.
import * as THREE from "three";
import { heat, objectColor } from "./colors.js";
import { drawPoints, pickPoints } from "./shaders.js";

/** Cells along the side of a cube, of which each has one point of the cube's own at most. */
const GRID = 64;
/** Cubes whose points are nearer than so many pixels need not be divided further. */
const FINE = 1.3;
/** Cubes that are fetched at once. */
const AT_ONCE = 6;
/** Bounds of the number of points that are drawn. */
const BUDGET = { least: 150_000, first: 1_500_000, most: 8_000_000 };
/** Cubes out of sight are forgotten above so many loaded points. */
const MOST_LOADED = 14_000_000;

const NONE = 65535;

export class Cloud {
  constructor(scan, source, changed) {
    this.scan = scan;
    this.source = source;
    this.changed = changed;
    this.group = new THREE.Group();
    this.budget = BUDGET.first;
    this.loading = 0;
    this.loaded = 0;
    this.drawn = 0;
    this.failed = null;
    this.named = null;
    this.asked = null;
    this.nodes = scan.nodes.map(([x, y, z, size, parent, start, count], index) => ({
      index, low: new THREE.Vector3(x, y, z), size, parent, start, count, children: [], state: "away", mesh: null, used: 0,
      box: new THREE.Box3(new THREE.Vector3(x, y, z), new THREE.Vector3(x + size, y + size, z + size)),
    }));
    for (const node of this.nodes) if (node.parent >= 0) this.nodes[node.parent].children.push(node);
    this.labelTexture = table(256);
    this.objectTexture = table(256);
    for (let i = 0; i < 65536; i++) this.objectTexture.image.data.set([...objectColor(i), 255], i * 4);
    const heats = new Uint8Array(256 * 4);
    for (let i = 0; i < 256; i++) heats.set([...heat(i / 255), 255], i * 4);
    const heatTexture = new THREE.DataTexture(heats, 256, 1);
    heatTexture.needsUpdate = this.objectTexture.needsUpdate = true;
    this.uniforms = {
      mode: { value: 1 }, focal: { value: 1 }, spacing: { value: scan.spacing || scan.nodes[0][3] / 200 }, least: { value: 1.6 },
      scale: { value: 1 }, split: { value: 0.5 },
      clipLow: { value: new THREE.Vector3().setScalar(-1e30) }, clipHigh: { value: new THREE.Vector3().setScalar(1e30) },
      selected: { value: 0 }, hovered: { value: 0 }, labels: { value: this.labelTexture }, heats: { value: heatTexture },
      objects: { value: this.objectTexture }, plain: { value: new THREE.Color() },
    };
    const material = ({ vertex, fragment }, uniforms) =>
      new THREE.RawShaderMaterial({ glslVersion: THREE.GLSL3, vertexShader: vertex, fragmentShader: fragment, uniforms });
    this.material = material(drawPoints, this.uniforms);
    this.picker = material(pickPoints, { ...this.uniforms, first: { value: 0 } });
  }

  /** Colours of the legend, and which labels are shown. */
  setLegend(legend, isHidden) {
    const data = this.labelTexture.image.data;
    data.fill(0);
    for (const { label, color } of legend) {
      data.set([...color, isHidden(label) ? 0 : 255], (label < 0 ? NONE : label) * 4);
    }
    this.labelTexture.needsUpdate = true;
  }

  /** New labels, scores and margins for all points, four bytes each; null for those of the scan. */
  setNamed(named) {
    this.named = named;
    for (const node of this.nodes) {
      if (!node.mesh) continue;
      const attribute = node.mesh.geometry.getAttribute("named");
      attribute.array.set(named ? this.part(named, node) : node.own);
      attribute.needsUpdate = true;
    }
  }

  /** Objects and heat of all points, four bytes each; null for none. */
  setAsked(asked) {
    this.asked = asked;
    for (const node of this.nodes) {
      if (!node.mesh) continue;
      const attribute = node.mesh.geometry.getAttribute("asked");
      if (asked) attribute.array.set(this.part(asked, node));
      else attribute.array.fill(0);
      attribute.needsUpdate = true;
    }
  }

  part(all, node) {
    return all.subarray(node.start * 4, (node.start + node.count) * 4);
  }

  async load(node) {
    node.state = "coming";
    this.loading++;
    try {
      const { places, colors, before } = await this.source.points(node.start, node.count);
      const own = new Uint8Array(node.count * 4);
      for (let i = 0; i < node.count; i++) {
        const label = places[i * 4 + 3];
        own[i * 4] = label & 255;
        own[i * 4 + 1] = label >> 8;
        own[i * 4 + 2] = colors[i * 4 + 3];
        own[i * 4 + 3] = before[i * 2 + 1];
      }
      node.own = own;
      const geometry = new THREE.BufferGeometry();
      const add = (name, array, width) => geometry.setAttribute(name, new THREE.BufferAttribute(array, width));
      add("place", places, 4);
      add("color", colors, 4);
      add("before", before, 2);
      add("named", this.named ? this.part(this.named, node).slice() : own.slice(), 4);
      add("asked", this.asked ? this.part(this.asked, node).slice() : new Uint8Array(node.count * 4), 4);
      geometry.setDrawRange(0, node.count);
      const mesh = new THREE.Points(geometry, this.material);
      mesh.frustumCulled = false;
      mesh.visible = false;
      mesh.position.copy(node.low);
      mesh.scale.setScalar(node.size / 65535);
      mesh.updateMatrixWorld();
      mesh.onBeforeRender = (_renderer, _scene, _camera, _geometry, material) => {
        material.uniforms.least.value = node.least;
        if (material.uniforms.first) material.uniforms.first.value = node.start;
        material.uniformsNeedUpdate = true;
      };
      node.mesh = mesh;
      node.state = "here";
      this.loaded += node.count;
      this.group.add(mesh);
    } catch (error) {
      node.state = "failed";
      this.failed = error;
    }
    this.loading--;
    this.changed();
  }

  forget(node) {
    this.group.remove(node.mesh);
    node.mesh.geometry.dispose();
    this.loaded -= node.count;
    node.mesh = node.own = null;
    node.state = "away";
  }

  /** Chooses the cubes that are drawn and fetched. `focal` is the number of pixels of a unit at distance one. */
  update(camera, focal, frame) {
    const frustum = new THREE.Frustum().setFromProjectionMatrix(
      new THREE.Matrix4().multiplyMatrices(camera.projectionMatrix, camera.matrixWorldInverse),
    );
    const eye = camera.position;
    const clip = new THREE.Box3(this.uniforms.clipLow.value, this.uniforms.clipHigh.value);
    const cell = (node) => {
      const distance = Math.max(node.box.distanceToPoint(eye), node.size * 0.05);
      return (node.size / GRID / distance) * focal;
    };
    for (const node of this.nodes) if (node.mesh) node.mesh.visible = false;
    const waiting = [];
    const enter = (node) => {
      if (!frustum.intersectsBox(node.box) || !clip.intersectsBox(node.box)) return;
      node.cell = cell(node);
      push(waiting, node);
    };
    const wanted = [];
    let drawn = 0;
    if (this.nodes.length) enter(this.nodes[0]);
    while (waiting.length) {
      const node = pop(waiting);
      if (drawn + node.count > this.budget && drawn > 0) {
        this.coarse(node);
        continue;
      }
      if (node.state !== "here") {
        if (node.state === "away") wanted.push(node);
        this.coarse(node);
        continue;
      }
      node.mesh.visible = true;
      node.used = frame;
      node.least = 1.6;
      drawn += node.count;
      if (node.cell > FINE) node.children.forEach(enter);
      else node.least = Math.max(1.6, node.cell);
    }
    for (const node of wanted.slice(0, AT_ONCE - this.loading)) this.load(node);
    if (this.loaded > MOST_LOADED) {
      const old = this.nodes.filter((node) => node.mesh && node.used < frame - 2).sort((a, b) => a.used - b.used);
      while (this.loaded > MOST_LOADED && old.length) this.forget(old.shift());
    }
    this.drawn = drawn;
    this.complete = wanted.length === 0 && this.loading === 0;
  }

  /** Where a cube is not drawn, the points of the one above it fill the gaps. */
  coarse(node) {
    const above = this.nodes[node.parent];
    if (above?.mesh) above.least = Math.max(above.least, Math.min(14, above.cell));
  }

  /** Adapts the number of points to the time of a frame in milliseconds. */
  adapt(time) {
    const { least, most } = BUDGET;
    if (time > 45) this.budget = Math.max(least, this.budget * 0.8);
    else if (time < 20) this.budget = Math.min(most, this.budget * 1.08);
  }

  /** Position and values of a point by its number. */
  point(index) {
    const node = this.nodes.find(({ start, count, mesh }) => mesh && index >= start && index < start + count);
    if (!node) return null;
    const i = index - node.start;
    const attribute = (name) => node.mesh.geometry.getAttribute(name).array;
    const place = attribute("place").subarray(i * 4, i * 4 + 3);
    const named = attribute("named").subarray(i * 4, i * 4 + 4);
    const asked = attribute("asked").subarray(i * 4, i * 4 + 4);
    const label = named[0] + 256 * named[1];
    return {
      position: new THREE.Vector3(...place).multiplyScalar(node.size / 65535).add(node.low),
      label: label === NONE ? -1 : label,
      object: asked[0] + 256 * asked[1],
    };
  }
}

function table(side) {
  const texture = new THREE.DataTexture(new Uint8Array(side * side * 4), side, side);
  texture.needsUpdate = true;
  return texture;
}

// A heap: the cube with the coarsest look comes first.
function push(heap, node) {
  heap.push(node);
  let at = heap.length - 1;
  while (at > 0) {
    const above = (at - 1) >> 1;
    if (heap[above].cell >= heap[at].cell) break;
    [heap[above], heap[at]] = [heap[at], heap[above]];
    at = above;
  }
}

function pop(heap) {
  const first = heap[0];
  const last = heap.pop();
  if (!heap.length) return first;
  heap[0] = last;
  for (let at = 0; ;) {
    let next = at;
    for (const child of [2 * at + 1, 2 * at + 2]) {
      if (child < heap.length && heap[child].cell > heap[next].cell) next = child;
    }
    if (next === at) return first;
    [heap[next], heap[at]] = [heap[at], heap[next]];
    at = next;
  }
}
