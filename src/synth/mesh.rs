//! Labelled triangle meshes, built from simple solids.

use std::collections::HashMap;

use glam::{Affine3A, Vec2, Vec3, vec2, vec3};

use super::draw::hash_unit;

/// Material, class and object of a triangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Surface {
    /// Number of the material.
    pub material: u16,
    /// The class, as NYU40's number.
    pub class: u8,
    /// Number of the object in the scene, from 1; 0 for none.
    pub instance: u16,
}

/// Triangles with smooth normals and texture coordinates, in metres.
#[derive(Clone, Debug, Default)]
pub(super) struct Mesh {
    pub positions: Vec<Vec3>,
    pub normals: Vec<Vec3>,
    /// Texture coordinates, in metres along the surface.
    pub uvs: Vec<Vec2>,
    pub triangles: Vec<[u32; 3]>,
    /// One per triangle.
    pub surfaces: Vec<Surface>,
}

/// An axis-aligned box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub min: Vec3,
    pub max: Vec3,
}

impl Bounds {
    pub(super) const EMPTY: Self = Self { min: Vec3::INFINITY, max: Vec3::NEG_INFINITY };

    pub(super) fn of(points: impl IntoIterator<Item = Vec3>) -> Self {
        points.into_iter().fold(Self::EMPTY, |bounds, p| Self { min: bounds.min.min(p), max: bounds.max.max(p) })
    }

    pub(super) fn size(&self) -> Vec3 {
        self.max - self.min
    }

    pub(super) fn center(&self) -> Vec3 {
        (self.min + self.max) * 0.5
    }
}

impl Mesh {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds::of(self.positions.iter().copied())
    }

    /// Adds `other`, moved by `frame`, a rotation and translation. Its objects get the number `instance`.
    pub(super) fn append(&mut self, other: &Self, frame: &Affine3A, instance: u16) {
        let first = self.positions.len() as u32;
        self.positions.extend(other.positions.iter().map(|&p| frame.transform_point3(p)));
        self.normals.extend(other.normals.iter().map(|&n| frame.transform_vector3(n)));
        self.uvs.extend_from_slice(&other.uvs);
        self.triangles.extend(other.triangles.iter().map(|t| t.map(|corner| corner + first)));
        self.surfaces.extend(other.surfaces.iter().map(|surface| Surface { instance, ..*surface }));
    }

    /// Moves the whole mesh.
    pub(super) fn transform(&mut self, frame: &Affine3A) {
        self.positions.iter_mut().for_each(|p| *p = frame.transform_point3(*p));
        self.normals.iter_mut().for_each(|n| *n = frame.transform_vector3(*n));
    }

    /// Returns the normal of a triangle, with twice the triangle's area as its length.
    pub(super) fn area_normal(&self, triangle: [u32; 3]) -> Vec3 {
        let [a, b, c] = triangle.map(|corner| self.positions[corner as usize]);
        (b - a).cross(c - a)
    }

    /// Cuts triangles until no edge is longer than `max_edge` allows for its surface, in metres. Neighbours
    /// stay joined: the cut of an edge depends on the edge alone, and a solid has a single surface.
    pub(super) fn refine(&mut self, max_edge: impl Fn(&Surface) -> f32) {
        loop {
            let mut middles: HashMap<[u32; 2], u32> = HashMap::new();
            let mut triangles = Vec::with_capacity(self.triangles.len() * 2);
            let mut surfaces = Vec::with_capacity(self.triangles.len() * 2);
            for (triangle, &surface) in std::mem::take(&mut self.triangles).into_iter().zip(&self.surfaces) {
                let [a, b, c] = triangle;
                let limit = max_edge(&surface).powi(2);
                let middles = [[a, b], [b, c], [c, a]].map(|[p, q]| {
                    let length = self.positions[p as usize].distance_squared(self.positions[q as usize]);
                    (length > limit).then(|| {
                        *middles.entry([p.min(q), p.max(q)]).or_insert_with(|| {
                            let (p, q) = (p.min(q) as usize, p.max(q) as usize);
                            self.positions.push((self.positions[p] + self.positions[q]) * 0.5);
                            self.normals.push((self.normals[p] + self.normals[q]).normalize_or(self.normals[p]));
                            self.uvs.push((self.uvs[p] + self.uvs[q]) * 0.5);
                            self.positions.len() as u32 - 1
                        })
                    })
                });
                let before = triangles.len();
                match middles {
                    [None, None, None] => triangles.push(triangle),
                    [Some(m), None, None] => triangles.extend([[a, m, c], [m, b, c]]),
                    [None, Some(m), None] => triangles.extend([[b, m, a], [m, c, a]]),
                    [None, None, Some(m)] => triangles.extend([[c, m, b], [m, a, b]]),
                    [Some(m), Some(n), None] => triangles.extend([[m, b, n], [a, m, n], [a, n, c]]),
                    [None, Some(m), Some(n)] => triangles.extend([[m, c, n], [b, m, n], [b, n, a]]),
                    [Some(n), None, Some(m)] => triangles.extend([[m, a, n], [c, m, n], [c, n, b]]),
                    [Some(m), Some(n), Some(o)] => triangles.extend([[a, m, o], [m, b, n], [o, n, c], [m, n, o]]),
                }
                surfaces.resize(surfaces.len() + triangles.len() - before, surface);
            }
            self.triangles = triangles;
            self.surfaces = surfaces;
            if middles.is_empty() {
                return;
            }
        }
    }
}

/// A ring of [`Builder::loft`]: half axes, centre and height.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    pub half: Vec2,
    pub center: Vec2,
    pub z: f32,
}

/// Returns a ring around the axis.
pub(super) fn ring(x: f32, y: f32, z: f32) -> Ring {
    Ring { half: vec2(x, y), center: Vec2::ZERO, z }
}

/// Returns a circular ring around the axis.
pub(super) fn round(radius: f32, z: f32) -> Ring {
    ring(radius, radius, z)
}

/// Rotates around the origin, counter-clockwise as seen from above, then translates.
pub(super) fn placed(at: Vec3, yaw: f32) -> Affine3A {
    Affine3A::from_translation(at) * Affine3A::from_rotation_z(yaw)
}

/// Builds a mesh from solids. Each takes the current material, class and frame.
#[derive(Debug)]
pub(super) struct Builder {
    pub mesh: Mesh,
    frame: Affine3A,
    surface: Surface,
    solids: i32,
}

impl Builder {
    pub(super) fn new(class: u8) -> Self {
        Self {
            mesh: Mesh::default(),
            frame: Affine3A::IDENTITY,
            surface: Surface { material: 0, class, instance: 0 },
            solids: 0,
        }
    }

    /// Sets the class of the following solids.
    pub(super) fn class(&mut self, class: u8) -> &mut Self {
        self.surface.class = class;
        self
    }

    /// Sets the material of the following solids.
    pub(super) fn paint(&mut self, material: u16) -> &mut Self {
        self.surface.material = material;
        self
    }

    /// Builds within another frame, relative to the current one.
    pub(super) fn within(&mut self, frame: Affine3A, build: impl FnOnce(&mut Self)) {
        let outer = self.frame;
        self.frame = outer * frame;
        build(self);
        self.frame = outer;
    }

    /// Returns a random texture offset, so that no two boards have the same grain.
    fn grain_offset(&mut self) -> Vec2 {
        self.solids += 1;
        vec2(hash_unit(self.solids, 1, 7), hash_unit(self.solids, 2, 7)) * 16.0
    }

    fn vertex(&mut self, position: Vec3, normal: Vec3, uv: Vec2) -> u32 {
        self.mesh.positions.push(self.frame.transform_point3(position));
        self.mesh.normals.push(self.frame.transform_vector3(normal).normalize_or(Vec3::Z));
        self.mesh.uvs.push(uv);
        self.mesh.positions.len() as u32 - 1
    }

    fn triangle(&mut self, corners: [u32; 3]) {
        self.mesh.triangles.push(corners);
        self.mesh.surfaces.push(self.surface);
    }

    /// Adds a grid of `nu` x `nv` cells over the unit square; `f` gives position, normal and texture
    /// coordinates. Seen from the side that the normals point to, u and v turn counter-clockwise.
    pub(super) fn grid(&mut self, nu: usize, nv: usize, mut f: impl FnMut(f32, f32) -> (Vec3, Vec3, Vec2)) {
        let first = self.mesh.positions.len() as u32;
        for j in 0..=nv {
            for i in 0..=nu {
                let (p, n, uv) = f(i as f32 / nu as f32, j as f32 / nv as f32);
                self.vertex(p, n, uv);
            }
        }
        for j in 0..nv as u32 {
            for i in 0..nu as u32 {
                let a = first + j * (nu as u32 + 1) + i;
                let (b, c, d) = (a + 1, a + nu as u32 + 1, a + nu as u32 + 2);
                self.triangle([a, b, d]);
                self.triangle([a, d, c]);
            }
        }
    }

    /// Adds the parallelogram at `corner`, facing `u x v`. Texture coordinates are metres from `uv`, along u
    /// and v.
    pub(super) fn quad_at(&mut self, corner: Vec3, u: Vec3, v: Vec3, uv: Vec2) {
        let normal = u.cross(v).normalize_or(Vec3::Z);
        let (length_u, length_v) = (u.length(), v.length());
        self.grid(1, 1, |s, t| (corner + u * s + v * t, normal, uv + vec2(s * length_u, t * length_v)));
    }

    /// Adds a parallelogram like [`quad_at`](Self::quad_at), with the grain along the longer side.
    pub(super) fn quad(&mut self, corner: Vec3, u: Vec3, v: Vec3) {
        let offset = self.grain_offset();
        if u.length_squared() >= v.length_squared() {
            self.quad_at(corner, u, v, offset);
        } else {
            // A quarter turn: the same area with u along the longer side.
            self.quad_at(corner + u, v, -u, offset);
        }
    }

    /// Adds a box, with the grain along its longest side.
    pub(super) fn cuboid(&mut self, min: Vec3, max: Vec3) {
        let (min, max) = (min.min(max), min.max(max));
        let size = max - min;
        let along = longest(size);
        let offset = self.grain_offset();
        for axis in 0..3 {
            let (mut p, mut q) = ((axis + 1) % 3, (axis + 2) % 3);
            let turned = p != along && (q == along || size[q] > size[p]);
            if turned {
                (p, q) = (q, p);
            }
            for up in [false, true] {
                let mut corner = min;
                corner[axis] = if up { max[axis] } else { min[axis] };
                let (mut u, mut v) = (Vec3::ZERO, Vec3::ZERO);
                u[p] = size[p];
                v[q] = size[q];
                if up == turned {
                    // This makes u x v point outwards.
                    corner[p] += size[p];
                    u = -u;
                }
                self.quad_at(corner, u, v, offset + vec2(axis as f32 * 3.7, f32::from(u8::from(up)) * 1.3));
            }
        }
    }

    /// Adds a box; `center` is the middle of its lower side.
    pub(super) fn block(&mut self, center: Vec3, size: Vec3) {
        let half = vec3(size.x, size.y, 0.0) * 0.5;
        self.cuboid(center - half, center + half + vec3(0.0, 0.0, size.z));
    }

    /// Adds a box with rounded edges.
    pub(super) fn rounded(&mut self, min: Vec3, max: Vec3, radius: f32) {
        let (min, max) = (min.min(max), min.max(max));
        let (center, half) = ((min + max) * 0.5, (max - min) * 0.5);
        let radius = radius.min(half.min_element());
        if radius < 1e-4 {
            return self.cuboid(min, max);
        }
        let core = half - Vec3::splat(radius);
        let offset = self.grain_offset();
        let stops = |half: f32| {
            let r = radius;
            [-half, -half + 0.18 * r, -half + 0.5 * r, -half + r, half - r, half - 0.5 * r, half - 0.18 * r, half]
        };
        for axis in 0..3 {
            let (p, q) = ((axis + 1) % 3, (axis + 2) % 3);
            let (along_p, along_q) = (stops(half[p]), stops(half[q]));
            for sign in [-1.0_f32, 1.0] {
                self.grid(7, 7, |s, t| {
                    let i = (s * 7.0).round() as usize;
                    let i = if sign > 0.0 { i } else { 7 - i };
                    let mut at = Vec3::ZERO;
                    at[axis] = sign * half[axis];
                    at[p] = along_p[i];
                    at[q] = along_q[(t * 7.0).round() as usize];
                    let inner = at.clamp(-core, core);
                    let normal = (at - inner).normalize_or(Vec3::Z);
                    let (u, v) = if half[p] >= half[q] { (p, q) } else { (q, p) };
                    (center + inner + normal * radius, normal, offset + vec2(at[u], at[v]))
                });
            }
        }
    }

    /// Adds a [`rounded`](Self::rounded) box; `center` is the middle of its lower side.
    pub(super) fn rounded_block(&mut self, center: Vec3, size: Vec3, radius: f32) {
        let half = vec3(size.x, size.y, 0.0) * 0.5;
        self.rounded(center - half, center + half + vec3(0.0, 0.0, size.z), radius);
    }

    /// Joins rings from first to last. Each is a superellipse with this exponent (2 is an ellipse, more is
    /// squarer); `lids` closes the ends. Corners of the profile that turn by more than 40 degrees stay sharp.
    /// Rings from bottom to top show the outside, rings from top to bottom the inside.
    pub(super) fn loft(&mut self, rings: &[Ring], exponent: f32, segments: usize, lids: [bool; 2]) {
        let offset = self.grain_offset();
        let direction = |k: usize| {
            let angle = k as f32 / segments as f32 * std::f32::consts::TAU;
            let (sin, cos) = angle.sin_cos();
            let power = 2.0 / exponent;
            (vec2(cos, sin), vec2(cos.signum() * cos.abs().powf(power), sin.signum() * sin.abs().powf(power)))
        };
        let at = |ring: &Ring, k: usize| {
            let (_, unit) = direction(k);
            (ring.center + ring.half * unit).extend(ring.z)
        };
        // Normal of the band between two rings, at one angle.
        let band = |a: &Ring, b: &Ring, k: usize| {
            let around = at(a, k + 1) - at(a, k + segments - 1) + at(b, k + 1) - at(b, k + segments - 1);
            around.cross(at(b, k) - at(a, k)).normalize_or_zero()
        };
        let mut along = 0.0;
        for i in 0..rings.len().saturating_sub(1) {
            let (a, b) = (rings[i], rings[i + 1]);
            let length = at(&a, 0).distance(at(&b, 0)).max(0.3 * at(&a, segments / 4).distance(at(&b, segments / 4)));
            let around = (a.half + b.half).length() * 0.5 * std::f32::consts::TAU * 0.75;
            let normal_at = |k: usize, upper: bool| {
                let own = band(&a, &b, k);
                let other = match upper {
                    false if i > 0 => band(&rings[i - 1], &a, k),
                    true if i + 2 < rings.len() => band(&b, &rings[i + 2], k),
                    _ => own,
                };
                if own.dot(other) > 0.766 { (own + other).normalize_or(own) } else { own }
            };
            self.grid(segments, 1, |s, t| {
                let k = (s * segments as f32).round() as usize;
                let ring = if t < 0.5 { &a } else { &b };
                let uv = offset + vec2(along + t * length, s * around);
                (at(ring, k % segments), normal_at(k % segments + segments, t > 0.5), uv)
            });
            along += length;
        }
        for (lid, index, sign) in [(lids[0], 0, -1.0), (lids[1], rings.len() - 1, 1.0)] {
            if !lid || rings.is_empty() {
                continue;
            }
            let ring = rings[index];
            let normal = vec3(0.0, 0.0, sign);
            let middle = self.vertex(ring.center.extend(ring.z), normal, offset);
            let first = middle + 1;
            for k in 0..segments {
                let p = at(&ring, k);
                self.vertex(p, normal, offset + p.truncate() - ring.center);
            }
            for k in 0..segments as u32 {
                let (p, q) = (first + k, first + (k + 1) % segments as u32);
                self.triangle(if sign > 0.0 { [middle, p, q] } else { [middle, q, p] });
            }
        }
    }

    /// Adds a closed cone or cylinder between two points.
    pub(super) fn rod(&mut self, from: Vec3, to: Vec3, radius_from: f32, radius_to: f32, segments: usize) {
        let axis = (to - from).normalize_or(Vec3::Z);
        let side = axis.any_orthonormal_vector();
        let frame = Affine3A::from_cols(side.into(), axis.cross(side).into(), axis.into(), from.into());
        let length = from.distance(to);
        self.within(frame, |b| {
            b.loft(&[round(radius_from, 0.0), round(radius_to, length)], 2.0, segments, [true, true]);
        });
    }

    /// Adds a tube through points, with round joints.
    pub(super) fn tube(&mut self, points: &[Vec3], radius: f32, segments: usize) {
        for pair in points.windows(2) {
            self.rod(pair[0], pair[1], radius, radius, segments);
        }
        for &joint in points.get(1..points.len().saturating_sub(1)).unwrap_or_default() {
            self.ellipsoid(joint, Vec3::splat(radius), segments);
        }
    }

    /// Adds an ellipsoid with half axes along those of the frame.
    pub(super) fn ellipsoid(&mut self, center: Vec3, half: Vec3, segments: usize) {
        let offset = self.grain_offset();
        self.grid(segments, (segments / 2).max(3), |s, t| {
            let (around, up) = (s * std::f32::consts::TAU, (t - 0.5) * std::f32::consts::PI);
            let unit = vec3(around.cos() * up.cos(), around.sin() * up.cos(), up.sin());
            let uv = offset + vec2(s * 4.0 * half.x, t * 2.0 * half.z);
            (center + unit * half, (unit / half).normalize_or(unit), uv)
        });
    }

    /// Adds a thin sheet with two faces. Seen from the front, u and v turn counter-clockwise.
    pub(super) fn sheet(&mut self, nu: usize, nv: usize, thickness: f32, f: impl Fn(f32, f32) -> Vec3) {
        let offset = self.grain_offset();
        let step = 0.5 / nu.max(nv) as f32;
        let normal = |u: f32, v: f32| {
            let du = f(u + step, v) - f(u - step, v);
            let dv = f(u, v + step) - f(u, v - step);
            du.cross(dv).normalize_or(Vec3::Z)
        };
        let width = (0..nu).map(|i| f(i as f32 / nu as f32, 0.5).distance(f((i + 1) as f32 / nu as f32, 0.5)));
        let (width, height) = (width.sum::<f32>(), f(0.5, 0.0).distance(f(0.5, 1.0)));
        for front in [true, false] {
            let sign = if front { 1.0 } else { -1.0 };
            self.grid(nu, nv, |u, v| {
                let u = if front { u } else { 1.0 - u };
                let n = normal(u, v) * sign;
                (f(u, v) + n * (0.5 * thickness), n, offset + vec2(u * width, v * height))
            });
        }
    }

    /// Adds a cushion around `center`, of half sizes `half`: two bulging faces that meet in a seam.
    pub(super) fn cushion(&mut self, center: Vec3, half: Vec3) {
        let offset = self.grain_offset();
        let bulge = |u: f32, v: f32| {
            let side = |t: f32| (1.0 - (2.0 * t - 1.0).abs().powi(4)).max(0.0).sqrt();
            let pinch = |t: f32, o: f32| (2.0 * t - 1.0) * (1.0 - 0.10 * (2.0 * o - 1.0).powi(2));
            vec3(pinch(u, v) * half.x, pinch(v, u) * half.y, side(u) * side(v) * half.z)
        };
        let step = 0.02;
        for sign in [1.0_f32, -1.0] {
            self.grid(10, 10, |u, v| {
                let u = if sign > 0.0 { u } else { 1.0 - u };
                let (u0, u1) = ((u - step).max(0.001), (u + step).min(0.999));
                let (v0, v1) = ((v - step).max(0.001), (v + step).min(0.999));
                let n = (bulge(u1, v) - bulge(u0, v)).cross(bulge(u, v1) - bulge(u, v0)).normalize_or(Vec3::Z);
                let flip = vec3(1.0, 1.0, sign);
                (center + bulge(u, v) * flip, n * flip, offset + vec2(u * half.x, v * half.y) * 2.0)
            });
        }
    }
}

fn longest(size: Vec3) -> usize {
    (1..3).fold(0, |longest, axis| if size[axis] > size[longest] { axis } else { longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Volume by the divergence theorem. It is right only if every triangle faces outwards.
    fn volume(mesh: &Mesh) -> f32 {
        let volume = |t: &[u32; 3]| {
            let [a, b, c] = t.map(|corner| mesh.positions[corner as usize]);
            a.dot(b.cross(c)) / 6.0
        };
        mesh.triangles.iter().map(volume).sum()
    }

    fn built(build: impl FnOnce(&mut Builder)) -> Mesh {
        let mut builder = Builder::new(5);
        builder.within(placed(vec3(3.0, -2.0, 1.0), 0.7), build);
        let mesh = builder.mesh;
        for (triangle, _) in mesh.triangles.iter().zip(&mesh.surfaces) {
            let flat = mesh.area_normal(*triangle);
            let smooth: Vec3 = triangle.iter().map(|&corner| mesh.normals[corner as usize]).sum();
            assert!(flat.length() < 1e-6 || flat.dot(smooth) > 0.0, "a normal points inwards");
        }
        mesh
    }

    #[test]
    fn solids_face_outwards_and_have_their_volume() {
        let near = |mesh: &Mesh, expected: f32| {
            let found = volume(mesh);
            assert!((found / expected - 1.0).abs() < 0.03, "{found}, expected {expected}");
        };
        near(&built(|b| b.cuboid(vec3(0.0, 0.0, 0.0), vec3(2.0, 0.5, 1.0))), 1.0);
        near(&built(|b| b.cuboid(vec3(0.0, 0.0, 0.0), vec3(0.5, 1.0, 2.0))), 1.0);
        near(&built(|b| b.rounded(Vec3::ZERO, vec3(2.0, 1.0, 0.5), 0.02)), 1.0);
        near(&built(|b| b.rod(Vec3::ZERO, vec3(0.0, 1.0, 1.0), 0.2, 0.2, 48)), 0.1777);
        near(&built(|b| b.ellipsoid(Vec3::ONE, vec3(0.5, 0.4, 0.3), 48)), 0.2513);
        // The sheet is open at its edges. So it has no volume, but its faces have a side.
        assert_eq!(built(|b| b.sheet(8, 8, 0.01, |u, v| vec3(u, v, 0.2 * (u * 3.0).sin()))).triangles.len(), 256);
        assert!(volume(&built(|b| b.cushion(Vec3::ZERO, vec3(0.3, 0.2, 0.1)))) > 0.012);
    }

    #[test]
    fn refining_keeps_the_surface_and_joins() {
        let mut mesh = built(|b| b.cuboid(Vec3::ZERO, vec3(2.0, 0.5, 1.0)));
        let area = |mesh: &Mesh| mesh.triangles.iter().map(|t| mesh.area_normal(*t).length() * 0.5).sum::<f32>();
        let (before, volume_before) = (area(&mesh), volume(&mesh));
        mesh.refine(|_| 0.15);
        assert!(mesh.triangles.len() > 1000 && mesh.triangles.len() == mesh.surfaces.len());
        assert!((area(&mesh) - before).abs() < 1e-3 && (volume(&mesh) - volume_before).abs() < 1e-3);
        for t in &mesh.triangles {
            for (p, q) in [(0, 1), (1, 2), (2, 0)] {
                let length = mesh.positions[t[p] as usize].distance(mesh.positions[t[q] as usize]);
                assert!(length <= 0.15);
            }
        }
    }
}
