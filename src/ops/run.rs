//! One call for both devices: [`run`] hands an operation's tensors to its launch on a GPU or to its twin on the host.

use burn::backend::DispatchTensorKind;
use burn::backend::{Flex, TensorMetadata};
use burn::prelude::*;
use burn::tensor::{DType, Element, TensorData};
use burn_flex::FlexTensor;
use burn_wgpu::{CubeBackend, CubeTensor};

use super::as_i32;
use crate::gpu::into_contiguous;

/// Runs an operation where its operands are: `wgsl` on a GPU, `twin` on the host.
///
/// Both get the operands in the shape in which they came: a tensor becomes a contiguous [`CubeTensor`] on a GPU and a
/// [`Host`] slice on the host; options, arrays and tuples of tensors become options, arrays and tuples of these. The
/// operands leave the autodiff layer here, and integers become i32; see [`with_gradient`](super::with_gradient) for
/// gradients. What `wgsl` and `twin` return becomes a tensor again, or a tuple of tensors, by the same rule.
pub(crate) fn run<I: Operands, O: Results>(
    operands: I,
    wgsl: impl FnOnce(I::Gpu) -> O::Gpu,
    twin: impl FnOnce(I::Host) -> O::Host,
) -> O {
    if operands.is_on_host() {
        O::from_host(twin(operands.into_host()))
    } else {
        O::from_gpu(wgsl(operands.into_gpu()))
    }
}

/// The host half of [`run`], for operations that are composed of burn's on a GPU. The operands must be on the host.
pub(crate) fn run_twin<I: Operands, O: Results>(operands: I, twin: impl FnOnce(I::Host) -> O::Host) -> O {
    O::from_host(twin(operands.into_host()))
}

/// The GPU half of [`run`], for the step of a composed operation that is a kernel of ours. The operands must be on a GPU.
pub(crate) fn run_wgsl<I: Operands, O: Results>(operands: I, wgsl: impl FnOnce(I::Gpu) -> O::Gpu) -> O {
    O::from_gpu(wgsl(operands.into_gpu()))
}

/// Tensors that [`run`] takes; all on one device.
pub(crate) trait Operands {
    /// The tensors as a launch takes them.
    type Gpu;
    /// The tensors as a twin takes them.
    type Host;
    /// Is the first tensor on the host?
    fn is_on_host(&self) -> bool;
    fn into_gpu(self) -> Self::Gpu;
    fn into_host(self) -> Self::Host;
}

/// Tensors that [`run`] gives.
pub(crate) trait Results {
    /// The tensors as a launch gives them.
    type Gpu;
    /// The tensors as a twin gives them.
    type Host;
    fn from_gpu(results: Self::Gpu) -> Self;
    fn from_host(results: Self::Host) -> Self;
}

const ON_GPU: &str = "all operands of an operation are on one GPU";
const ON_HOST: &str = "all operands of an operation are on the host";

impl<const D: usize> Operands for Tensor<D> {
    type Gpu = CubeTensor;
    type Host = Host<f32>;

    fn is_on_host(&self) -> bool {
        matches!(self.clone().without_autodiff().into_dispatch().kind, DispatchTensorKind::Flex(_))
    }

    fn into_gpu(self) -> CubeTensor {
        into_contiguous(self.without_autodiff().try_into_primitive::<CubeBackend>().expect(ON_GPU))
    }

    fn into_host(self) -> Host<f32> {
        Host::new(self.without_autodiff().try_into_primitive::<Flex>().expect(ON_HOST))
    }
}

impl<const D: usize> Operands for Tensor<D, Int> {
    type Gpu = CubeTensor;
    type Host = Host<i32>;

    fn is_on_host(&self) -> bool {
        matches!(self.clone().into_dispatch().kind, DispatchTensorKind::Flex(_))
    }

    fn into_gpu(self) -> CubeTensor {
        into_contiguous(as_i32(self).without_autodiff().try_into_primitive::<CubeBackend>().expect(ON_GPU))
    }

    fn into_host(self) -> Host<i32> {
        Host::new(as_i32(self).without_autodiff().try_into_primitive::<Flex>().expect(ON_HOST))
    }
}

impl<const D: usize> Results for Tensor<D> {
    type Gpu = CubeTensor;
    type Host = FlexTensor;

    fn from_gpu(result: CubeTensor) -> Self {
        Tensor::from_primitive::<CubeBackend>(result)
    }

    fn from_host(result: FlexTensor) -> Self {
        Tensor::from_primitive::<Flex>(result)
    }
}

impl<const D: usize> Results for Tensor<D, Int> {
    type Gpu = CubeTensor;
    type Host = FlexTensor;

    fn from_gpu(result: CubeTensor) -> Self {
        Tensor::from_primitive::<CubeBackend>(result)
    }

    fn from_host(result: FlexTensor) -> Self {
        Tensor::from_primitive::<Flex>(result)
    }
}

impl<T: Operands> Operands for Option<T> {
    type Gpu = Option<T::Gpu>;
    type Host = Option<T::Host>;

    fn is_on_host(&self) -> bool {
        self.as_ref().is_some_and(Operands::is_on_host)
    }

    fn into_gpu(self) -> Self::Gpu {
        self.map(Operands::into_gpu)
    }

    fn into_host(self) -> Self::Host {
        self.map(Operands::into_host)
    }
}

impl<T: Results> Results for Option<T> {
    type Gpu = Option<T::Gpu>;
    type Host = Option<T::Host>;

    fn from_gpu(results: Self::Gpu) -> Self {
        results.map(T::from_gpu)
    }

    fn from_host(results: Self::Host) -> Self {
        results.map(T::from_host)
    }
}

impl<T: Operands, const N: usize> Operands for [T; N] {
    type Gpu = [T::Gpu; N];
    type Host = [T::Host; N];

    fn is_on_host(&self) -> bool {
        self.first().is_some_and(Operands::is_on_host)
    }

    fn into_gpu(self) -> Self::Gpu {
        self.map(Operands::into_gpu)
    }

    fn into_host(self) -> Self::Host {
        self.map(Operands::into_host)
    }
}

impl<T: Results, const N: usize> Results for [T; N] {
    type Gpu = [T::Gpu; N];
    type Host = [T::Host; N];

    fn from_gpu(results: Self::Gpu) -> Self {
        results.map(T::from_gpu)
    }

    fn from_host(results: Self::Host) -> Self {
        results.map(T::from_host)
    }
}

macro_rules! tuples {
    ($($first:ident $($T:ident)*;)*) => {$(
        #[allow(non_snake_case, reason = "a value is named as its type")]
        impl<$first: Operands, $($T: Operands),*> Operands for ($first, $($T),*) {
            type Gpu = ($first::Gpu, $($T::Gpu),*);
            type Host = ($first::Host, $($T::Host),*);

            fn is_on_host(&self) -> bool {
                self.0.is_on_host()
            }

            fn into_gpu(self) -> Self::Gpu {
                let ($first, $($T),*) = self;
                ($first.into_gpu(), $($T.into_gpu()),*)
            }

            fn into_host(self) -> Self::Host {
                let ($first, $($T),*) = self;
                ($first.into_host(), $($T.into_host()),*)
            }
        }

        #[allow(non_snake_case, reason = "a value is named as its type")]
        impl<$first: Results, $($T: Results),*> Results for ($first, $($T),*) {
            type Gpu = ($first::Gpu, $($T::Gpu),*);
            type Host = ($first::Host, $($T::Host),*);

            fn from_gpu(($first, $($T),*): Self::Gpu) -> Self {
                ($first::from_gpu($first), $($T::from_gpu($T)),*)
            }

            fn from_host(($first, $($T),*): Self::Host) -> Self {
                ($first::from_host($first), $($T::from_host($T)),*)
            }
        }
    )*};
}

tuples! {
    A B;
    A B C;
    A B C D;
    A B C D E;
}

/// The elements of a host tensor, in row-major order.
pub(crate) struct Host<E> {
    tensor: FlexTensor,
    element: std::marker::PhantomData<E>,
}

impl<E: Element + bytemuck::Pod> Host<E> {
    fn new(tensor: FlexTensor) -> Self {
        Self { tensor: tensor.to_contiguous(), element: std::marker::PhantomData }
    }

    /// The shape of the tensor, of `D` dimensions.
    pub(crate) fn dims<const D: usize>(&self) -> [usize; D] {
        self.tensor.shape().dims()
    }

    /// The type of the elements, for tensors in which it is not always `E`.
    pub(crate) fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    /// The tensor itself, contiguous.
    pub(crate) fn into_tensor(self) -> FlexTensor {
        self.tensor
    }

    /// The elements, which are of another type than `E`.
    pub(crate) fn elements<F: Element + bytemuck::Pod>(&self) -> &[F] {
        self.tensor.as_slice().expect("contiguous, and the caller has asked for the dtype")
    }
}

impl<E: Element + bytemuck::Pod> std::ops::Deref for Host<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        self.elements()
    }
}

/// A twin's result as a tensor.
pub(crate) fn host_tensor<E: Element, const D: usize>(values: Vec<E>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Rows of `N` consecutive elements.
pub(crate) fn rows<E: bytemuck::Pod, const N: usize>(values: &[E]) -> &[[E; N]] {
    bytemuck::cast_slice(values)
}
