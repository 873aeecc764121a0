// Rows are not divided by less than this, as in PyTorch's `normalize`.
const MIN_NORM: f32 = 1e-12;
