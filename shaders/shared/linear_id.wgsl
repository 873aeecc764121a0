// Launches past the device's workgroups per dimension are folded into y; this undoes the fold. The
// fold may start more workgroups than asked for, so every shader checks its own bounds.
fn workgroup_index(workgroup_id: vec3<u32>, num_workgroups: vec3<u32>) -> u32 {
    return workgroup_id.x + num_workgroups.x * (workgroup_id.y + num_workgroups.y * workgroup_id.z);
}
