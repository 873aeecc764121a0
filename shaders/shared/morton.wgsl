// Morton code of three 21-bit coordinates as two words (low, high); x owns the lowest bit of each
// triple. Low word: bits 0..31 of the 63-bit code.

// Spreads the low 10 bits of v to every third bit.
fn spread10(v: u32) -> u32 {
    var x = v & 0x3ffu;
    x = (x | (x << 16u)) & 0x030000ffu;
    x = (x | (x << 8u)) & 0x0300f00fu;
    x = (x | (x << 4u)) & 0x030c30c3u;
    x = (x | (x << 2u)) & 0x09249249u;
    return x;
}

fn morton_code(p: vec3<u32>) -> vec2<u32> {
    // Triples of bits 0..9 fill code bits 0..29, bit 10 straddles the words at 30, 31 | 32.
    let low = spread10(p.x) | (spread10(p.y) << 1u) | (spread10(p.z) << 2u);
    let b = (p >> vec3<u32>(10u)) & vec3<u32>(1u);
    let upper = p >> vec3<u32>(11u);
    let high = spread10(upper.x) | (spread10(upper.y) << 1u) | (spread10(upper.z) << 2u);
    return vec2<u32>(low | (b.x << 30u) | (b.y << 31u), (high << 1u) | b.z);
}

fn code_less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}
