// Activations. The error function is x times a rational function of x^2 fitted to [0, 3.95], off by at
// most 4e-7; the host's twin has the same coefficients.
fn erf(v: f32) -> f32 {
    let x = clamp(v, -3.95, 3.95);
    let s = x * x;
    let p = fma(fma(fma(fma(fma(2.0255918e-6, s, 2.8471535e-4), s, 3.8095803e-3), s, 5.287979e-2),
                    s, 0.19158398), s, 1.1283792);
    let q = fma(fma(fma(fma(fma(3.782997e-5, s, 1.1710621e-3), s, 1.5057928e-2), s, 0.11457345),
                    s, 0.5031195), s, 1.0);
    return clamp(x * p / q, -1.0, 1.0);
}

fn gelu(x: f32) -> f32 {
    return 0.5 * x * (1.0 + erf(x * 0.70710678));
}

fn quick_gelu(x: f32) -> f32 {
    return x / (1.0 + exp(-1.702 * x));
}
