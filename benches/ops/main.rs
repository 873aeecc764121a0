//! Every operation, a module each, named as in `src/ops`: `cargo bench --bench ops -- knn`.

mod adamw;
mod affinity;
mod attention;
mod batch_norm;
mod bicubic_antialias;
mod bilinear;
#[path = "../common/mod.rs"]
mod common;
mod compact;
mod contrastive_pairs;
mod conv2d;
mod conv_transpose2d;
mod depthwise_conv2d;
mod focal_modulation;
mod fuse_views;
mod gather_index;
mod group_norm;
mod hash_grid;
mod info_nce;
mod kernel_map;
mod knn;
mod layer_norm;
mod matmul;
mod normals;
mod pixel_queries;
mod pooling;
mod prefix_sum;
mod project;
mod radix_sort;
mod rasterize;
mod segment_reduce;
mod serialization;
mod serialized_attention;
mod sparse_conv;
mod splat;
mod stride_map;
mod voxel_grid;

fn main() {
    divan::main();
}
