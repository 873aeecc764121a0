//! Stable sort of indices by integer keys of one or more 32-bit words.

pub mod cpu;

use super::prefix_sum::prefix_sum;
use crate::gpu::shaders::radix_sort::{count, iota, scatter};
use crate::gpu::{Client, Handle, launch, scalar_buffer};

/// The order that sorts `num_keys` keys of `word_bits.len()` words each, least significant word
/// first; `word_bits[w]` is how many low bits of word `w` can differ between keys.
///
/// `keys` is `[num_keys, words]`, the result `[num_keys]`; equal keys keep their order. Least
/// significant digit first, 4 bits a pass: `Σ ⌈bits / 4⌉` passes.
pub(crate) fn radix_sort(client: &Client, keys: &Handle, num_keys: usize, word_bits: &[u32]) -> Handle {
    let mut order = scalar_buffer(client, num_keys);
    let n = num_keys as u32;
    launch(client, &iota::BASE, num_keys.div_ceil(iota::WG as usize), &iota::Params { num_keys: n }, &[&order]);
    let num_tiles = num_keys.div_ceil(count::TILE as usize);
    if num_tiles == 0 {
        return order;
    }
    let num_counts = num_tiles * count::DIGITS as usize;
    let counts = scalar_buffer(client, num_counts);
    for (word, &bits) in word_bits.iter().enumerate() {
        for shift in (0..bits).step_by(count::DIGIT_BITS as usize) {
            let (num_tiles, key_words, word) = (num_tiles as u32, word_bits.len() as u32, word as u32);
            let next = scalar_buffer(client, num_keys);
            launch(
                client,
                &count::BASE,
                num_tiles as usize,
                &count::Params { num_keys: n, num_tiles, key_words, word, shift },
                &[keys, &order, &counts],
            );
            let offsets = prefix_sum(client, &counts, num_counts);
            launch(
                client,
                &scatter::BASE,
                num_tiles as usize,
                &scatter::Params { num_keys: n, num_tiles, key_words, word, shift },
                &[keys, &order, &offsets, &next],
            );
            order = next;
        }
    }
    order
}
