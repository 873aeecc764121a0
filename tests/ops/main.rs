//! Every operation on every device: against its twin on the host or its definition in f64, at the sizes where
//! kernels break (nothing, one, a workgroup minus, exactly and plus one, several workgroups, past the fold of the
//! dispatch), and its gradients against those of its composition or differences. A module per operation, named
//! as in `src/ops`.

mod adamw;
mod affinity;
mod attention;
mod batch_norm;
mod bicubic_antialias;
mod bilinear;
#[path = "../common/camera.rs"]
mod camera;
#[path = "../common/mod.rs"]
mod common;
mod compact;
mod contracts;
mod contrastive_pairs;
mod conv2d;
mod conv_transpose2d;
mod depthwise_conv2d;
mod focal_modulation;
mod fuse_views;
mod gather_index;
mod group_norm;
mod hash_grid;
mod helpers;
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
mod shaders;
mod sparse_conv;
mod splat;
mod stride_map;
mod voxel_grid;
