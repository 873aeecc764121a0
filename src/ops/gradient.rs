//! One call for every gradient: [`with_gradient`] ties the result of an operation to its parents by a function.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchKindConversion, DispatchTensor, Flex, GradientCheckpointingStrategy,
};
use burn::prelude::*;
use burn_wgpu::CubeBackend;

use super::run::Operands;

/// Makes gradients flow from `out` to its `parents`.
///
/// `out` is computed from the parents outside the autodiff layer, as [`run`](super::run) does. `parents` is a tuple of
/// tensors, or of options of them. Where none of them is in the autodiff layer, `out` is returned as it is. Else the
/// backward pass calls `backward(grad, wants)` at most once: `grad` is the gradient of `out`, `wants` says which parents
/// ask for theirs, and the gradients come back in a tuple, one for each parent and shaped as it is. They are plain tensors, as is
/// everything that `backward` captures.
pub(crate) fn with_gradient<P: Parents<N>, const N: usize, const D: usize>(
    parents: P,
    out: Tensor<D>,
    backward: impl FnOnce(Tensor<D>, [bool; N]) -> P::Gradients + Send + 'static,
) -> Tensor<D> {
    let Some(strategy) = parents.strategy() else {
        return out;
    };
    let is_on_host = out.is_on_host();
    // An absent parent is a constant: nobody asks for its gradient.
    let parents = parents.into_graph(strategy).map(|parent| match parent {
        Some(parent) => parent,
        None => into_graph(out.clone(), strategy),
    });
    let backward = Pullback::new(move |grad, wants| P::into_dispatch(backward(Tensor::from_dispatch(grad), wants)));
    let out = out.into_dispatch();
    Tensor::from_dispatch(match (is_on_host, strategy) {
        (true, GradientCheckpointingStrategy::Disabled) => attach::<Flex, NoCheckpointing, N>(parents, out, backward),
        (true, GradientCheckpointingStrategy::Balanced) => {
            attach::<Flex, BalancedCheckpointing, N>(parents, out, backward)
        }
        (false, GradientCheckpointingStrategy::Disabled) => {
            attach::<CubeBackend, NoCheckpointing, N>(parents, out, backward)
        }
        (false, GradientCheckpointingStrategy::Balanced) => {
            attach::<CubeBackend, BalancedCheckpointing, N>(parents, out, backward)
        }
    })
}

/// Tensors that a gradient may flow to.
pub(crate) trait Parents<const N: usize> {
    /// A gradient for each of them, where it is asked for.
    type Gradients;
    /// How the autodiff layer keeps what it needs; none where no parent is in it.
    fn strategy(&self) -> Option<GradientCheckpointingStrategy>;
    /// The parents in the autodiff layer, as constants where they were outside.
    fn into_graph(self, strategy: GradientCheckpointingStrategy) -> [Option<DispatchTensor>; N];
    fn into_dispatch(gradients: Self::Gradients) -> [Option<DispatchTensor>; N];
}

/// One of the [`Parents`]: a tensor, or perhaps one.
pub(crate) trait Parent {
    type Gradient;
    fn strategy(&self) -> Option<GradientCheckpointingStrategy>;
    fn into_graph(self, strategy: GradientCheckpointingStrategy) -> Option<DispatchTensor>;
    fn into_dispatch(gradient: Self::Gradient) -> Option<DispatchTensor>;
}

impl<const D: usize> Parent for Tensor<D> {
    type Gradient = Option<Self>;

    fn strategy(&self) -> Option<GradientCheckpointingStrategy> {
        self.gradient_checkpointing_strategy()
    }

    fn into_graph(self, strategy: GradientCheckpointingStrategy) -> Option<DispatchTensor> {
        Some(into_graph(self, strategy))
    }

    fn into_dispatch(gradient: Option<Self>) -> Option<DispatchTensor> {
        gradient.map(Tensor::into_dispatch)
    }
}

impl<const D: usize> Parent for Option<Tensor<D>> {
    type Gradient = Self;

    fn strategy(&self) -> Option<GradientCheckpointingStrategy> {
        self.as_ref().and_then(Tensor::gradient_checkpointing_strategy)
    }

    fn into_graph(self, strategy: GradientCheckpointingStrategy) -> Option<DispatchTensor> {
        self.map(|tensor| into_graph(tensor, strategy))
    }

    fn into_dispatch(gradient: Self) -> Option<DispatchTensor> {
        gradient.map(Tensor::into_dispatch)
    }
}

fn into_graph<const D: usize>(tensor: Tensor<D>, strategy: GradientCheckpointingStrategy) -> DispatchTensor {
    if tensor.is_autodiff() {
        return tensor.into_dispatch();
    }
    tensor.autodiff().with_gradient_checkpointing_strategy(strategy).into_dispatch()
}

macro_rules! tuples {
    ($($N:literal: $($P:ident $i:tt)*;)*) => {$(
        impl<$($P: Parent),*> Parents<$N> for ($($P,)*) {
            type Gradients = ($($P::Gradient,)*);

            fn strategy(&self) -> Option<GradientCheckpointingStrategy> {
                [$(self.$i.strategy()),*].into_iter().flatten().next()
            }

            fn into_graph(self, strategy: GradientCheckpointingStrategy) -> [Option<DispatchTensor>; $N] {
                [$(self.$i.into_graph(strategy)),*]
            }

            fn into_dispatch(gradients: Self::Gradients) -> [Option<DispatchTensor>; $N] {
                [$($P::into_dispatch(gradients.$i)),*]
            }
        }
    )*};
}

tuples! {
    1: A 0;
    2: A 0 B 1;
    3: A 0 B 1 C 2;
    4: A 0 B 1 C 2 D 3;
    5: A 0 B 1 C 2 D 3 E 4;
    6: A 0 B 1 C 2 D 3 E 4 F 5;
}

type BackwardFn<const N: usize> = dyn FnOnce(DispatchTensor, [bool; N]) -> [Option<DispatchTensor>; N] + Send;

/// A backward function as burn keeps it: it must be `Clone`, though it is called once.
#[derive(Clone)]
struct Pullback<const N: usize>(Arc<Mutex<Option<Box<BackwardFn<N>>>>>);

impl<const N: usize> Pullback<N> {
    fn new(backward: impl FnOnce(DispatchTensor, [bool; N]) -> [Option<DispatchTensor>; N] + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(backward)))))
    }
}

impl<const N: usize> std::fmt::Debug for Pullback<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pullback")
    }
}

#[derive(Debug)]
struct Step;

impl<B: Backend, const N: usize> Backward<B, N> for Step
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = Pullback<N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = dispatched::<B>(grads.consume::<B>(&ops.node));
        let Some(backward) = ops.state.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let gradients = backward(grad, ops.parents.each_ref().map(Option::is_some));
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, primitive::<B>(gradient));
            }
        }
    }
}

fn primitive<B: Backend>(tensor: DispatchTensor) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let tensor = <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor);
    tensor.expect("a gradient is on the device of its tensor").float()
}

fn dispatched<B: Backend>(tensor: FloatTensor<B>) -> DispatchTensor
where
    DispatchTensor: DispatchKindConversion<B>,
{
    <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(tensor))
}

/// Puts `out` into the graph of its parents.
fn attach<B: Backend, C: CheckpointStrategy, const N: usize>(
    parents: [DispatchTensor; N],
    out: DispatchTensor,
    backward: Pullback<N>,
) -> DispatchTensor
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    let parents = parents.map(primitive::<Autodiff<B, C>>);
    let nodes = parents.each_ref().map(|parent| parent.node());
    let out = primitive::<B>(out);
    dispatched::<Autodiff<B, C>>(match <Step as Backward<B, N>>::prepare::<C>(Step, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(backward, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    })
}
