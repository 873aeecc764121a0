use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{
    CubeKernel, PrecompiledSource,
    ir::{UIntKind, metadata::Info},
    prelude::*,
    server::{KernelArguments, MetadataBindingInfo},
};
pub(crate) use burn_cubecl::cubecl::{client::Client, server::Handle};
pub(crate) use burn_cubecl::kernel::into_contiguous;
use burn_wgpu::CubeTensor;

use super::{Access, Limits, Shader};

/// A tensor that this device cannot hold in one buffer.
#[derive(Debug, thiserror::Error)]
#[error(
    "{tensor} wants {bytes} bytes in one buffer, the device allows {limit}: \
     split the scene, or use --device cpu"
)]
pub struct LaunchError {
    /// Name of the tensor.
    pub tensor: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Largest buffer of the device, in bytes.
    pub limit: u64,
}

/// Checks that `rows` × `row_bytes` fit one buffer of a device with `limits`.
///
/// # Errors
/// [`LaunchError`] naming `tensor` where they do not.
pub fn check_binding(limits: Limits, tensor: &str, rows: usize, row_bytes: usize) -> Result<(), LaunchError> {
    let bytes = rows as u64 * row_bytes as u64;
    if bytes > limits.max_binding_bytes {
        return Err(LaunchError { tensor: tensor.to_owned(), bytes, limit: limits.max_binding_bytes });
    }
    Ok(())
}

/// A [`Shader`] as a kernel of cubecl: text in, nothing compiled by cubecl.
struct WgslKernel(&'static Shader);

impl KernelMetadata for WgslKernel {
    fn name(&self) -> &'static str {
        self.0.name
    }

    // Pipelines are cached by this id alone, never by source: the permutation must be part of it.
    fn id(&self) -> KernelId {
        KernelId::new::<Self>().cube_dim(self.cube_dim().into()).info((self.0.name, self.0.variant))
    }

    fn address_type(&self) -> ElemType {
        UIntKind::U32.into()
    }
}

impl WgslKernel {
    fn cube_dim(&self) -> CubeDim {
        let [x, y, z] = self.0.workgroup_size;
        CubeDim::new_3d(x, y, z)
    }
}

impl CubeKernel for WgslKernel {
    fn define(&self) -> KernelDefinition {
        // Checked would count the iterations of every loop; ours all have a bound of their own.
        let settings = KernelSettings::new(self.cube_dim().0, ExecutionMode::Unchecked, AddressType::U32);
        KernelDefinition { body: Scope::root(settings.clone()), settings, info: Info::default() }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        Some(PrecompiledSource { source: self.0.source.to_owned(), entrypoint_name: "main".to_owned(), lang: "wgsl" })
    }
}

/// Queues `num_workgroups` workgroups of `shader` on `buffers` (in binding order, without the
/// parameters). Counts past the device's limit per dimension fold into y: the shader rebuilds the
/// linear index with `workgroup_index` of `shaders/shared/linear_id.wgsl`. Zero workgroups launch
/// nothing. Failures to compile or run surface at the next read, as burn's own kernels do.
pub(crate) fn launch<P: bytemuck::Pod>(
    client: &Client,
    shader: &'static Shader,
    num_workgroups: usize,
    params: &P,
    buffers: &[&Handle],
) {
    if num_workgroups == 0 {
        return;
    }
    assert_eq!(buffers.len() + 1, shader.bindings.len(), "{}: number of buffers", shader.name);
    let max = Limits::of(client).max_workgroups as usize;
    let x = num_workgroups.min(max);
    let y = num_workgroups.div_ceil(x);
    let mut arguments = KernelArguments::new();
    for (buffer, (_, access)) in buffers.iter().zip(shader.bindings) {
        let io = match access {
            Access::Write => BufferIOAttr::ReadWrite,
            Access::Read | Access::Params => BufferIOAttr::ReadOnly,
        };
        arguments = arguments.with_buffer_io((*buffer).clone().binding(), io);
    }
    let words = bytemuck::pod_collect_to_vec(std::slice::from_ref(params));
    client.launch(
        Box::new(WgslKernel(shader)),
        CubeCount::new_2d(x as u32, y as u32),
        arguments.with_info(MetadataBindingInfo::custom(words)),
    );
}

/// An uninitialised f32 tensor on the device of `like`.
pub(crate) fn empty_f32<const D: usize>(like: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    empty(like, Shape::from(shape), DType::F32)
}

/// An uninitialised i32 tensor on the device of `like`.
pub(crate) fn empty_i32<const D: usize>(like: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    empty(like, Shape::from(shape), DType::I32)
}

fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    burn_cubecl::ops::numeric::empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// The first `len` words of `words` as an i32 tensor `[len]` on the device of `like`.
pub(crate) fn i32_tensor(like: &CubeTensor, words: Handle, len: usize) -> CubeTensor {
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), Shape::from([len]), words, DType::I32)
}

/// A buffer with a copy of `values`.
pub(crate) fn upload<T: bytemuck::NoUninit>(client: &Client, values: &[T]) -> Handle {
    client.create_from_slice(bytemuck::cast_slice(values))
}

/// A buffer of `len` 32-bit words, uninitialised; one word at least, so that it can be bound.
pub(crate) fn scalar_buffer(client: &Client, len: usize) -> Handle {
    client.empty(len.max(1) * 4)
}
