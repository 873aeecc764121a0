// A position is an integer voxel (VOXELS) or a real point. Both are given as rows of three.
#ifdef VOXELS
alias Scalar = i32;
alias Position = vec3<i32>;
const FARTHEST: Scalar = 0x7fffffff;
// Larger differences than this square past 2^31.
const MAX_DIFFERENCE: u32 = 46341u;
#else
alias Scalar = f32;
alias Position = vec3<f32>;
const FARTHEST: Scalar = 3.4028235e38;
#endif

// Squared distance. Between voxels it saturates at 2^31 - 1; between points the three squares are
// added in order.
fn sq_distance(a: Position, b: Position) -> Scalar {
#ifdef VOXELS
    let d = min(vec3<u32>(abs(a - b)), vec3<u32>(MAX_DIFFERENCE));
    let s = min(d * d, vec3<u32>(0x7fffffffu));
    return i32(min(min(s.x + s.y, 0x7fffffffu) + s.z, 0x7fffffffu));
#else
    let d = a - b;
    return d.x * d.x + d.y * d.y + d.z * d.z;
#endif
}
