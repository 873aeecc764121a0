// The stage: camera, drawing on demand, picking, pictures.
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { shadeDepth } from "./shaders.js";

const FIELD_OF_VIEW = 50;
/** Pixels around the pointer within which a point is found. */
const REACH = 4;
const EASE = 450;
const EDGES = [0, 1, 1, 3, 3, 2, 2, 0, 4, 5, 5, 7, 7, 6, 6, 4, 0, 4, 1, 5, 2, 6, 3, 7];

export class Stage {
  constructor(canvas, cloud) {
    this.canvas = canvas;
    this.cloud = cloud;
    const context = canvas.getContext("webgl2", { antialias: true, powerPreference: "high-performance" });
    if (!context) throw new Error("no WebGL");
    this.renderer = new THREE.WebGLRenderer({ canvas, context });
    this.renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
    this.renderer.autoClear = false;
    THREE.ColorManagement.enabled = false;
    this.scene = new THREE.Scene();
    this.scene.matrixWorldAutoUpdate = false;
    this.scene.add(cloud.group);
    this.overlay = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 1000);
    this.up = new THREE.Vector3(...cloud.scan.up);
    this.camera.up.copy(this.up);
    this.controls = new OrbitControls(this.camera, canvas);
    Object.assign(this.controls, { enableDamping: true, dampingFactor: 0.14, zoomToCursor: true, screenSpacePanning: true, rotateSpeed: 0.8 });
    this.controls.addEventListener("change", () => this.draw());
    this.controls.addEventListener("start", () => { this.flight = null; });
    this.target = new THREE.WebGLRenderTarget(1, 1, { depthTexture: new THREE.DepthTexture(1, 1, THREE.UnsignedIntType), minFilter: THREE.NearestFilter, magFilter: THREE.NearestFilter });
    const side = 2 * REACH + 1;
    this.pickTarget = new THREE.WebGLRenderTarget(side, side);
    this.pickScene = new THREE.Scene();
    this.post = new THREE.Mesh(new THREE.BufferGeometry(), new THREE.RawShaderMaterial({
      glslVersion: THREE.GLSL3, vertexShader: shadeDepth.vertex, fragmentShader: shadeDepth.fragment, depthTest: false, depthWrite: false,
      uniforms: {
        picture: { value: this.target.texture }, depths: { value: this.target.depthTexture }, pixel: { value: new THREE.Vector2() },
        near: { value: 0.1 }, far: { value: 1 }, strength: { value: 2.4 }, back: { value: new THREE.Color() }, backFar: { value: new THREE.Color() },
      },
    }));
    this.post.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array([-1, -1, 0, 3, -1, 0, -1, 3, 0]), 3));
    this.post.frustumCulled = false;
    const line = (opacity) => {
      const lines = new THREE.LineSegments(new THREE.BufferGeometry(), new THREE.LineBasicMaterial({ vertexColors: true, transparent: true, opacity, depthTest: false }));
      lines.frustumCulled = false;
      this.overlay.add(lines);
      return lines;
    };
    this.manyBoxes = line(0.45);
    this.oneBox = line(1);
    const { focus } = cloud.scan;
    this.focus = new THREE.Box3(new THREE.Vector3(...focus[0]), new THREE.Vector3(...focus[1]));
    this.frame = 0;
    this.keys = new Set();
    this.after = [];
    this.isAsked = false;
    this.moved = () => {};
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); });
    canvas.addEventListener("webglcontextrestored", () => this.draw());
    this.resize();
    this.showAll(true);
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(width, height, false);
    const pixels = [Math.floor(width * ratio), Math.floor(height * ratio)];
    this.target.setSize(...pixels);
    this.size = { width, height, ratio };
    this.post.material.uniforms.pixel.value.set(1.4 * ratio / pixels[0], 1.4 * ratio / pixels[1]);
    this.camera.aspect = width / height;
    this.draw();
  }

  setGround(near, far) {
    this.post.material.uniforms.back.value.setStyle(near, THREE.LinearSRGBColorSpace);
    this.post.material.uniforms.backFar.value.setStyle(far, THREE.LinearSRGBColorSpace);
    this.cloud.uniforms.plain.value.setStyle(near, THREE.LinearSRGBColorSpace);
    this.draw();
  }

  /** Asks for a frame. */
  draw() {
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame((now) => this.render(now));
  }

  render(now) {
    this.isAsked = false;
    const time = now - (this.last ?? now - 1000);
    this.last = now;
    this.frame++;
    if (this.wasMoving && time < 500) this.cloud.adapt(time);
    const isMoving = this.fly(time) | this.advance(now) | this.controls.update();
    this.wasMoving = Boolean(isMoving);
    const { camera, renderer, cloud } = this;
    const distance = camera.position.distanceTo(this.controls.target);
    const extent = this.focus.getSize(new THREE.Vector3()).length() || 1;
    camera.near = Math.max(extent / 1e5, Math.min(distance, extent) / 200);
    camera.far = Math.max(extent * 20, distance * 6);
    camera.updateProjectionMatrix();
    camera.updateMatrixWorld();
    const focal = (this.size.height * this.size.ratio) / (2 * Math.tan((FIELD_OF_VIEW * Math.PI) / 360));
    cloud.uniforms.focal.value = focal;
    cloud.update(camera, focal, this.frame);
    const { uniforms } = this.post.material;
    uniforms.near.value = camera.near;
    uniforms.far.value = camera.far;
    renderer.setRenderTarget(this.target);
    renderer.setClearColor(0, 0);
    renderer.clear();
    renderer.render(this.scene, camera);
    renderer.setRenderTarget(null);
    renderer.clear();
    renderer.render(this.post, camera);
    renderer.render(this.overlay, camera);
    for (const after of this.after) after(time);
    if (isMoving) {
      this.moved();
      this.draw();
    }
  }

  /** Number of the point at a place of the canvas, -1 for none. */
  pick(x, y) {
    const { width, height, ratio } = this.size;
    const side = 2 * REACH + 1;
    const { camera, renderer, cloud } = this;
    camera.setViewOffset(width * ratio, height * ratio, Math.floor(x * ratio) - REACH, Math.floor(y * ratio) - REACH, side, side);
    camera.updateProjectionMatrix();
    this.scene.overrideMaterial = cloud.picker;
    renderer.setRenderTarget(this.pickTarget);
    renderer.setClearColor(0, 0);
    renderer.clear();
    renderer.render(this.scene, camera);
    const pixels = new Uint8Array(side * side * 4);
    renderer.readRenderTargetPixels(this.pickTarget, 0, 0, side, side, pixels);
    this.scene.overrideMaterial = null;
    renderer.setRenderTarget(null);
    camera.clearViewOffset();
    camera.updateProjectionMatrix();
    let best = -1;
    let nearest = Infinity;
    for (let i = 0; i < side * side; i++) {
      const id = pixels[i * 4] + pixels[i * 4 + 1] * 256 + pixels[i * 4 + 2] * 65536 + pixels[i * 4 + 3] * 16777216;
      const far = ((i % side) - REACH) ** 2 + (Math.floor(i / side) - REACH) ** 2;
      if (id > 0 && far < nearest) [best, nearest] = [id - 1, far];
    }
    return best;
  }

  /** Place of a position on the canvas; null behind the camera. */
  project(position) {
    const seen = position.clone().project(this.camera);
    if (seen.z > 1) return null;
    return { x: (seen.x * 0.5 + 0.5) * this.size.width, y: (0.5 - seen.y * 0.5) * this.size.height };
  }

  /** Looks at a box from the present side, or from above at a slant. */
  lookAt(box, { side, instant } = {}) {
    const center = box.getCenter(new THREE.Vector3());
    const radius = Math.max(box.getSize(new THREE.Vector3()).length() / 2, this.cloud.uniforms.spacing.value * 10);
    const angle = Math.min(FIELD_OF_VIEW, 2 * Math.atan(Math.tan((FIELD_OF_VIEW * Math.PI) / 360) * this.camera.aspect) * (180 / Math.PI));
    const direction = side ?? this.camera.position.clone().sub(this.controls.target).normalize();
    const position = center.clone().addScaledVector(direction, radius / Math.sin((angle * Math.PI) / 360) * 0.92);
    this.goTo(position, center, instant);
  }

  showAll(instant) {
    // A slanted look along the longer side shows most of a room.
    const size = this.focus.getSize(new THREE.Vector3());
    const axes = [new THREE.Vector3(1, 0, 0), new THREE.Vector3(0, 1, 0), new THREE.Vector3(0, 0, 1)];
    const flat = axes.filter((axis) => Math.abs(axis.dot(this.up)) < 0.6);
    const [a, b] = flat.length === 2 ? flat : [axes[0], axes[1]];
    const [short, long] = size.dot(a) < size.dot(b) ? [a, b] : [b, a];
    const side = short.clone().multiplyScalar(-0.75).addScaledVector(long, 0.3).addScaledVector(this.up, 1.15).normalize();
    this.lookAt(this.focus, { side, instant });
  }

  goTo(position, target, instant = matchMedia("(prefers-reduced-motion: reduce)").matches) {
    if (instant) {
      this.camera.position.copy(position);
      this.controls.target.copy(target);
      this.flight = null;
    } else {
      this.flight = { from: [this.camera.position.clone(), this.controls.target.clone()], to: [position, target], start: performance.now() };
    }
    this.draw();
  }

  advance(now) {
    if (!this.flight) return false;
    const { from, to, start } = this.flight;
    const t = Math.min(1, Math.max(0, (now - start) / EASE));
    const share = t * t * (3 - 2 * t);
    this.camera.position.lerpVectors(from[0], to[0], share);
    this.controls.target.lerpVectors(from[1], to[1], share);
    if (t === 1) this.flight = null;
    return true;
  }

  /** Moves by the keys that are held. */
  fly(time) {
    if (!this.keys.size) return false;
    const forward = this.controls.target.clone().sub(this.camera.position);
    const speed = Math.max(forward.length(), this.focus.getSize(new THREE.Vector3()).length() * 0.05) * (this.keys.has("shift") ? 2.4 : 0.8);
    forward.normalize();
    const right = forward.clone().cross(this.up).normalize();
    const step = new THREE.Vector3();
    const along = { w: [forward, 1], s: [forward, -1], d: [right, 1], a: [right, -1], e: [this.up, 1], q: [this.up, -1] };
    for (const key of this.keys) if (along[key]) step.addScaledVector(...along[key]);
    if (!step.lengthSq()) return false;
    step.multiplyScalar((speed * Math.min(time, 100)) / 1000);
    this.camera.position.add(step);
    this.controls.target.add(step);
    return true;
  }

  /** Shows boxes with their colours; `lines` is one of the two sets of lines. */
  setBoxes(lines, boxes) {
    const positions = [];
    const colors = [];
    for (const { box, color } of boxes) {
      const { min, max } = box;
      for (const corner of EDGES) {
        positions.push(corner & 1 ? max.x : min.x, corner & 2 ? max.y : min.y, corner & 4 ? max.z : min.z);
        colors.push(...color.map((c) => c / 255));
      }
    }
    lines.geometry.dispose();
    lines.geometry = new THREE.BufferGeometry();
    lines.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(positions), 3));
    lines.geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(colors), 3));
    lines.visible = boxes.length > 0;
    this.draw();
  }

  /** The canvas as a PNG picture. */
  picture() {
    this.render(performance.now());
    return new Promise((done) => this.canvas.toBlob(done, "image/png"));
  }
}

export const boxOf = ({ low, high }, origin) =>
  new THREE.Box3(new THREE.Vector3(...low.map((x, i) => x - origin[i])), new THREE.Vector3(...high.map((x, i) => x - origin[i])));
export const { Vector3 } = THREE;
