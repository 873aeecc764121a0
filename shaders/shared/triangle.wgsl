// A triangle seen along the ray of a pixel, after Woop, Benthin and Wald, "Watertight Ray/Triangle
// Intersection" (2013): vertices are sheared so that the ray is the z axis. Corners are taken in
// ascending order of their index, so that two triangles compute their common edge in the same way and no
// ray slips through between them. Which way a triangle faces does not matter.
#import shared/pinhole

struct Triangle { a: vec3<f32>, b: vec3<f32>, c: vec3<f32> }

fn ascending(t: vec3<u32>) -> vec3<u32> {
    let least = min(min(t.x, t.y), t.z);
    let most = max(max(t.x, t.y), t.z);
    // Whichever is neither, also where some are equal.
    let middle = max(min(t.x, t.y), min(max(t.x, t.y), t.z));
    return vec3<u32>(least, middle, most);
}

// The corners' weights where the ray (direction.x, direction.y, 1) meets the plane of the triangle, not
// divided by their sum; all of one sign if it meets the triangle.
fn weights(t: Triangle, direction: vec2<f32>) -> vec3<f32> {
    let a = t.a.xy - direction * t.a.z;
    let b = t.b.xy - direction * t.b.z;
    let c = t.c.xy - direction * t.c.z;
    return vec3<f32>(b.x * c.y - b.y * c.x, -(a.x * c.y - a.y * c.x), a.x * b.y - a.y * b.x);
}
