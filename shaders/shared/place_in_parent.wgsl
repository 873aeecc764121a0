// Place of the cell (batch, x, y, z) in the cell of twice the edge that holds it: x + 2 y + 4 z of the lowest bits.
fn place_in_parent(cell: vec4<i32>) -> u32 {
    let low = vec3<u32>(cell.yzw) & vec3<u32>(1u);
    return low.x + 2u * low.y + 4u * low.z;
}
