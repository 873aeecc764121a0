//! Host twin: exact K nearest neighbours through a k-d tree, the candidates of a leaf's queries gathered once.
//!
//! Bounds of boxes are computed with the arithmetic of the distances themselves. Rounding and saturation
//! are monotone, so no position of a box is nearer than the box, to the last bit.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

/// Most positions in a leaf of the tree.
const LEAF: usize = 16;
/// Most keys a query can want: 128 neighbours and itself.
const MAX_WANTED: usize = 129;
/// Queries of a subtree of this height share their candidates.
const GROUP_HEIGHT: u32 = 1;
/// Fewer queries do not share: finding out what to gather costs a search.
const MIN_SHARING: usize = 4;
/// More shared candidates per neighbour wanted than this, and each query searches alone.
const MAX_SHARED: usize = 64;
/// Buckets of the sort by distance.
const NUM_BUCKETS: usize = 128;
/// Fullest bucket that insertion sort may meet.
const MAX_IN_BUCKET: u32 = 48;
/// Positions below which a subtree is built on one thread.
const MIN_PARALLEL: usize = 4096;

/// Neighbours of every query, row-major `[num_queries, k]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors<T> {
    /// -1 where there are fewer than k.
    pub index: Vec<i32>,
    /// Squared distance; `T`'s maximum beside -1.
    pub sq_dist: Vec<T>,
}

/// The `k` nearest voxels of the voxels `queries` among `coords`, one row per query, ascending by
/// (squared distance, index).
///
/// Squared distances saturate at 2³¹ − 1. `1 <= k <= 128`; coordinates are in 0..2²¹.
pub fn knn_voxels(coords: &[[i32; 3]], k: usize, include_self: bool, queries: Range<usize>) -> Neighbors<i32> {
    search(coords, k, include_self, queries)
}

/// The `k` nearest points of the points `queries` among `points`, one row per query, ascending by
/// (squared distance, index).
///
/// Squared distances are dx² + dy² + dz² in f32. `1 <= k <= 128`; coordinates are finite.
pub fn knn_points(points: &[[f32; 3]], k: usize, include_self: bool, queries: Range<usize>) -> Neighbors<f32> {
    search(points, k, include_self, queries)
}

/// The `k` nearest of `points` to every one of `queries`, which are other positions; else as [`knn_points`].
pub fn knn_between(queries: &[[f32; 3]], points: &[[f32; 3]], k: usize) -> Neighbors<f32> {
    let mut index = vec![-1; queries.len() * k];
    let mut sq_dist = vec![f32::MAX; queries.len() * k];
    if points.is_empty() {
        return Neighbors { index, sq_dist };
    }
    let (tree, arch) = (Tree::new(points), Arch::new());
    let tasks = index.par_chunks_mut(k).zip(sq_dist.par_chunks_mut(k)).zip(queries).with_min_len(MIN_SHARING);
    tasks.for_each_init(Scratch::new, |scratch, ((index, sq_dist), &query)| {
        arch.dispatch(Alone { tree: &tree, k, query, row: Row { tree_position: 0, index, sq_dist }, scratch });
    });
    Neighbors { index, sq_dist }
}

/// The search for a position that is not in the tree.
struct Alone<'a, 'r, T> {
    tree: &'a Tree<T>,
    k: usize,
    query: [T; 3],
    row: Row<'r, T>,
    scratch: &'a mut Scratch<T>,
}

impl<T: Scalar> NullaryFnOnce for Alone<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { tree, k, query, mut row, scratch } = self;
        search_alone(tree, query, k, scratch);
        row.write(&scratch.sorted, None);
    }
}

/// Coordinate and squared distance of one kind of position.
trait Scalar: Copy + PartialOrd + Send + Sync {
    const ZERO: Self;
    const FARTHEST: Self;
    /// Equal distances are common.
    const MANY_TIES: bool;
    fn minus(self, other: Self) -> Self;
    /// Squared length, monotone in each |d|.
    fn sq_norm(d: [Self; 3]) -> Self;
    /// Bits of a squared distance that order as it does.
    fn to_bits(self) -> u32;
    fn from_bits(bits: u32) -> Self;
    fn to_f32(self) -> f32;
    /// Somewhat larger squared distance; zero and the largest stay as they are.
    fn widened(self) -> Self;
}

impl Scalar for i32 {
    const ZERO: Self = 0;
    const FARTHEST: Self = Self::MAX;
    const MANY_TIES: bool = true;

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self - other
    }

    #[inline(always)]
    fn sq_norm(d: [Self; 3]) -> Self {
        // Larger differences square past 2^31.
        let [x, y, z] = d.map(|d| {
            let d = d.unsigned_abs().min(46341);
            (d * d).min(0x7fff_ffff)
        });
        (((x + y).min(0x7fff_ffff)) + z).min(0x7fff_ffff) as Self
    }

    #[inline(always)]
    fn to_bits(self) -> u32 {
        self as u32
    }

    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        bits as Self
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }

    #[inline(always)]
    fn widened(self) -> Self {
        if self == 0 { 0 } else { self.saturating_add(self / 4).saturating_add(1) }
    }
}

impl Scalar for f32 {
    const ZERO: Self = 0.0;
    const FARTHEST: Self = Self::MAX;
    const MANY_TIES: bool = false;

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self - other
    }

    #[inline(always)]
    fn sq_norm(d: [Self; 3]) -> Self {
        d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    }

    #[inline(always)]
    fn to_bits(self) -> u32 {
        Self::to_bits(self)
    }

    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        Self::from_bits(bits)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn widened(self) -> Self {
        self * 1.25
    }
}

/// Orders as (squared distance, index).
#[inline(always)]
fn key(sq_dist_bits: u32, index: u32) -> u64 {
    u64::from(sq_dist_bits) << 32 | u64::from(index)
}

#[derive(Clone, Copy)]
struct Entry<T> {
    position: [T; 3],
    index: u32,
}

/// Bounding box and lowest index of a subtree.
#[derive(Clone, Copy)]
struct Node<T> {
    lo: [T; 3],
    hi: [T; 3],
    min_index: u32,
}

impl<T: Scalar> Node<T> {
    const EMPTY: Self = Self { lo: [T::ZERO; 3], hi: [T::ZERO; 3], min_index: u32::MAX };

    fn of(entries: &[Entry<T>]) -> Self {
        let Some(first) = entries.first() else { return Self::EMPTY };
        let mut node = Self { lo: first.position, hi: first.position, min_index: first.index };
        for entry in &entries[1..] {
            node.min_index = node.min_index.min(entry.index);
            node.widen(entry.position);
        }
        node
    }

    #[inline(always)]
    fn widen(&mut self, position: [T; 3]) {
        for ((lo, hi), p) in self.lo.iter_mut().zip(&mut self.hi).zip(position) {
            *lo = if p < *lo { p } else { *lo };
            *hi = if p > *hi { p } else { *hi };
        }
    }

    fn widest_axis(&self) -> usize {
        let extent = |axis: usize| self.hi[axis].minus(self.lo[axis]);
        let widest = if extent(1) > extent(0) { 1 } else { 0 };
        if extent(2) > extent(widest) { 2 } else { widest }
    }

    /// No position of `other` has a lower key seen from a position of `self`.
    #[inline(always)]
    fn least_key(&self, other: &Self) -> u64 {
        let gap = |axis: usize| {
            let above = other.lo[axis].minus(self.hi[axis]);
            let below = self.lo[axis].minus(other.hi[axis]);
            let gap = if above > below { above } else { below };
            if gap > T::ZERO { gap } else { T::ZERO }
        };
        key(T::sq_norm([gap(0), gap(1), gap(2)]).to_bits(), other.min_index)
    }
}

/// Perfect binary tree over the positions: medians along the widest axis, nodes in preorder.
struct Tree<T> {
    height: u32,
    nodes: Vec<Node<T>>,
    positions: Candidates<T>,
    /// The positions of lowest index, as many as a query can want.
    lowest: Candidates<T>,
}

/// First position of part `part` of `2^halvings` even parts of `len`.
#[inline(always)]
fn part_start(len: usize, part: usize, halvings: u32) -> usize {
    ((part as u64 * len as u64) >> halvings) as usize
}

/// `part` of `2^depth` is this subtree's place in `total` positions.
fn build<T: Scalar>(entries: &mut [Entry<T>], nodes: &mut [Node<T>], total: usize, part: usize, depth: u32) {
    let Some((node, below)) = nodes.split_first_mut() else { return };
    *node = Node::of(entries);
    if below.is_empty() {
        entries.sort_unstable_by_key(|e| e.index);
        return;
    }
    let num_left = part_start(total, 2 * part + 1, depth + 1) - part_start(total, part, depth);
    let axis = node.widest_axis();
    if num_left < entries.len() {
        // Coincident positions part by index: their lowest indices stay together.
        entries.select_nth_unstable_by(num_left, |a, b| {
            let (p, q) = (a.position[axis], b.position[axis]);
            p.partial_cmp(&q).unwrap_or(std::cmp::Ordering::Equal).then(a.index.cmp(&b.index))
        });
    }
    let parallel = entries.len() >= MIN_PARALLEL;
    let (left, right) = entries.split_at_mut(num_left);
    let (nodes_left, nodes_right) = below.split_at_mut(below.len() / 2);
    let mut build_left = || build(left, nodes_left, total, 2 * part, depth + 1);
    let mut build_right = || build(right, nodes_right, total, 2 * part + 1, depth + 1);
    if parallel {
        rayon::join(build_left, build_right);
    } else {
        build_left();
        build_right();
    }
}

impl<T: Scalar> Tree<T> {
    fn new(positions: &[[T; 3]]) -> Self {
        let mut entries: Vec<Entry<T>> =
            positions.iter().zip(0..).map(|(&position, index)| Entry { position, index }).collect();
        let lowest = Candidates::new(&entries[..entries.len().min(MAX_WANTED)]);
        let height = positions.len().div_ceil(LEAF).max(1).next_power_of_two().trailing_zeros();
        let mut nodes = vec![Node::EMPTY; (2 << height) - 1];
        build(&mut entries, &mut nodes, positions.len(), 0, 0);
        Self { height, nodes, positions: Candidates::new(&entries), lowest }
    }

    /// Tree positions of the subtree of `height` that is the `part`-th of its kind.
    #[inline(always)]
    fn range(&self, part: usize, height: u32) -> Range<usize> {
        let halvings = self.height - height;
        part_start(self.positions.index.len(), part, halvings)
            ..part_start(self.positions.index.len(), part + 1, halvings)
    }

    /// Visits leaves that may hold keys up to `bound` seen from `from`, roughly nearest first. `visit`
    /// returns the new bound.
    #[inline(always)]
    fn visit_leaves(&self, from: &Node<T>, mut bound: u64, mut visit: impl FnMut(Range<usize>, u64) -> u64) {
        // (least key, node, height, part): one per level at most.
        let mut stack = [(0_u64, 0_usize, 0_u32, 0_usize); 32];
        let mut len = 1;
        stack[0] = (0, 0, self.height, 0);
        'subtrees: while len > 0 {
            len -= 1;
            let (least, mut node, mut height, mut part) = stack[len];
            if least > bound {
                continue;
            }
            while height > 0 {
                let (left, right) = (node + 1, node + (1 << height));
                let least_left = from.least_key(&self.nodes[left]);
                let least_right = from.least_key(&self.nodes[right]);
                height -= 1;
                let left = (least_left, left, height, 2 * part);
                let right = (least_right, right, height, 2 * part + 1);
                let (near, far) = if least_left <= least_right { (left, right) } else { (right, left) };
                if far.0 <= bound {
                    stack[len] = far;
                    len += 1;
                }
                if near.0 > bound {
                    continue 'subtrees;
                }
                (_, node, _, part) = near;
            }
            bound = visit(self.range(part, 0), bound);
        }
    }
}

/// Positions and their indices, a structure of arrays.
struct Candidates<T> {
    x: Vec<T>,
    y: Vec<T>,
    z: Vec<T>,
    index: Vec<u32>,
}

impl<T: Scalar> Candidates<T> {
    fn new(entries: &[Entry<T>]) -> Self {
        Self {
            x: entries.iter().map(|e| e.position[0]).collect(),
            y: entries.iter().map(|e| e.position[1]).collect(),
            z: entries.iter().map(|e| e.position[2]).collect(),
            index: entries.iter().map(|e| e.index).collect(),
        }
    }

    /// Appends the keys up to `bound` of the positions `run` seen from `q`.
    #[inline(always)]
    fn append_keys(&self, run: Range<usize>, q: [T; 3], bound: u64, sq_dist_bits: &mut Vec<u32>, keys: &mut Vec<u64>) {
        let num = run.len();
        if sq_dist_bits.len() < num {
            sq_dist_bits.resize(num, 0);
        }
        let sq_dist_bits = &mut sq_dist_bits[..num];
        let (x, y, z, index) = (&self.x[run.clone()], &self.y[run.clone()], &self.z[run.clone()], &self.index[run]);
        for i in 0..num {
            sq_dist_bits[i] = T::sq_norm([x[i].minus(q[0]), y[i].minus(q[1]), z[i].minus(q[2])]).to_bits();
        }
        // Every key is written, those not wanted are written over: no branch to mispredict.
        let mut len = keys.len();
        keys.resize(len + num, 0);
        for (&bits, &index) in sq_dist_bits.iter().zip(index) {
            let key = key(bits, index);
            keys[len] = key;
            len += usize::from(key <= bound);
        }
        keys.truncate(len);
    }

    #[inline(always)]
    fn at(&self, i: usize) -> [T; 3] {
        [self.x[i], self.y[i], self.z[i]]
    }
}

/// Working memory of one thread.
struct Scratch<T> {
    shared: Candidates<T>,
    /// (index, tree position) of the shared candidates.
    order: Vec<u64>,
    sq_dist_bits: Vec<u32>,
    keys: Vec<u64>,
    buckets: Vec<u8>,
    sorted: Vec<u64>,
}

impl<T: Scalar> Scratch<T> {
    fn new() -> Self {
        Self {
            shared: Candidates::new(&[]),
            order: Vec::new(),
            sq_dist_bits: Vec::new(),
            keys: Vec::new(),
            buckets: Vec::new(),
            sorted: Vec::new(),
        }
    }
}

/// Writes the `wanted` lowest of `keys` to `sorted` in ascending order; none is above `bound`.
#[inline(always)]
fn sort_lowest<T: Scalar>(keys: &[u64], wanted: usize, bound: u64, buckets: &mut Vec<u8>, sorted: &mut Vec<u64>) {
    let most = T::from_bits((bound >> 32) as u32).to_f32();
    let buckets_per_unit = ((NUM_BUCKETS - 1) as f32 / most).min(f32::MAX);
    buckets.clear();
    buckets.resize(keys.len(), 0);
    for (bucket, &key) in buckets.iter_mut().zip(keys) {
        let sq_dist = T::from_bits((key >> 32) as u32).to_f32();
        // Adding 2^23 rounds to an integer, in the low bits. All of it keeps order: a lower key never
        // falls into a higher bucket.
        *bucket = ((sq_dist * buckets_per_unit).min((NUM_BUCKETS - 1) as f32) + 8_388_608.0).to_bits() as u8;
    }
    let mut ends = [0_u32; NUM_BUCKETS];
    for &bucket in &*buckets {
        ends[bucket as usize % NUM_BUCKETS] += 1;
    }
    let fullest = ends.iter().copied().max().unwrap_or(0);
    let mut len = 0;
    for end in &mut ends {
        let count = *end;
        *end = len;
        len += count;
    }
    sorted.clear();
    sorted.resize(keys.len(), 0);
    for (&key, &bucket) in keys.iter().zip(&*buckets) {
        let at = &mut ends[bucket as usize % NUM_BUCKETS];
        sorted[*at as usize] = key;
        *at += 1;
    }
    if fullest > MAX_IN_BUCKET {
        sorted.sort_unstable();
    } else {
        for i in 1..sorted.len() {
            let key = sorted[i];
            let mut at = i;
            while at > 0 && sorted[at - 1] > key {
                sorted[at] = sorted[at - 1];
                at -= 1;
            }
            sorted[at] = key;
        }
    }
    sorted.truncate(wanted);
}

/// One query and its row.
struct Row<'a, T> {
    tree_position: usize,
    index: &'a mut [i32],
    sq_dist: &'a mut [T],
}

impl<T: Scalar> Row<'_, T> {
    /// Writes the row from the keys `sorted`, that of `excluded` left out.
    #[inline(always)]
    fn write(&mut self, sorted: &[u64], excluded: Option<u32>) {
        let k = self.index.len();
        let place = excluded.and_then(|excluded| sorted.iter().position(|&key| key as u32 == excluded));
        let (before, after) = sorted.split_at(place.unwrap_or(sorted.len()));
        let mut found = 0;
        for keys in [before, after.get(1..).unwrap_or_default()] {
            let keys = &keys[..keys.len().min(k - found)];
            for ((&key, index), sq_dist) in keys.iter().zip(&mut self.index[found..]).zip(&mut self.sq_dist[found..]) {
                *index = key as u32 as i32;
                *sq_dist = T::from_bits((key >> 32) as u32);
            }
            found += keys.len();
        }
        self.index[found..].fill(-1);
        self.sq_dist[found..].fill(T::FARTHEST);
    }
}

/// Leaves the `wanted` lowest keys seen from `q` in `scratch.sorted`, ascending.
#[inline(always)]
fn search_alone<T: Scalar>(tree: &Tree<T>, q: [T; 3], wanted: usize, scratch: &mut Scratch<T>) {
    let from = Node { lo: q, hi: q, min_index: 0 };
    let Scratch { sq_dist_bits, keys, buckets, sorted, .. } = scratch;
    // The lowest indices win where all distances are equal, as they are once saturated: starting from
    // them keeps the search from wandering through all that is far.
    keys.clear();
    tree.lowest.append_keys(0..wanted.min(tree.lowest.index.len()), q, u64::MAX, sq_dist_bits, keys);
    let mut last = keys.iter().copied().max().unwrap_or(0);
    keys.clear();
    let mut selected = false;
    tree.visit_leaves(
        &from,
        last,
        #[inline(always)]
        |run, bound| {
            tree.positions.append_keys(run, q, bound, sq_dist_bits, keys);
            if keys.len() >= 2 * wanted.max(LEAF) || (!selected && keys.len() >= wanted) {
                last = *keys.select_nth_unstable(wanted - 1).1;
                keys.truncate(wanted);
                selected = true;
            }
            last
        },
    );
    sort_lowest::<T>(keys, wanted, last, buckets, sorted);
}

/// Searches for neighbouring queries. A type of its own and inlined throughout, for the instruction set
/// chosen at run time to reach its loops.
struct Group<'a, 'r, T> {
    tree: &'a Tree<T>,
    k: usize,
    include_self: bool,
    rows: &'a mut [Row<'r, T>],
    scratch: &'a mut Scratch<T>,
}

impl<T: Scalar> NullaryFnOnce for Group<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { tree, k, include_self, rows, scratch } = self;
        // A query finds itself as well, and leaves itself out when its row is written.
        let wanted = if include_self { k } else { k + 1 };
        let bound = gather(tree, wanted, rows, scratch);
        for row in rows {
            let q = tree.positions.at(row.tree_position);
            let excluded = (!include_self).then_some(tree.positions.index[row.tree_position]);
            if let Some(bound) = bound {
                let Scratch { shared, sq_dist_bits, keys, buckets, sorted, .. } = scratch;
                keys.clear();
                shared.append_keys(0..shared.index.len(), q, bound, sq_dist_bits, keys);
                // Whatever was not gathered has a key above the bound.
                if keys.len() >= wanted {
                    sort_lowest::<T>(keys, wanted, bound, buckets, sorted);
                    row.write(sorted, excluded);
                    continue;
                }
            }
            search_alone(tree, q, wanted, scratch);
            row.write(&scratch.sorted, excluded);
        }
    }
}

/// Gathers every position whose key seen from one of `rows` is up to the returned bound, within which
/// most of them have their row; None where there are too many.
#[inline(always)]
fn gather<T: Scalar>(tree: &Tree<T>, wanted: usize, rows: &[Row<'_, T>], scratch: &mut Scratch<T>) -> Option<u64> {
    if rows.len() < MIN_SHARING {
        return None;
    }
    let middle = tree.positions.at(rows[rows.len() / 2].tree_position);
    search_alone(tree, middle, wanted, scratch);
    let last = *scratch.sorted.get(wanted - 1)?;
    let sq_dist = T::from_bits((last >> 32) as u32);
    let widened = sq_dist.widened();
    // At a distance that cannot be widened the lowest indices have the last places.
    let bound = if widened > sq_dist {
        key(widened.to_bits(), u32::MAX)
    } else {
        last.max(key(sq_dist.to_bits(), wanted as u32 - 1))
    };

    let mut from = Node { lo: middle, hi: middle, min_index: 0 };
    for row in rows {
        from.widen(tree.positions.at(row.tree_position));
    }
    let Scratch { shared, order, .. } = scratch;
    order.clear();
    let most = MAX_SHARED * (wanted + LEAF);
    tree.visit_leaves(
        &from,
        bound,
        #[inline(always)]
        |run, bound| {
            order.extend(run.map(|i| u64::from(tree.positions.index[i]) << 32 | i as u64));
            if order.len() <= most { bound } else { 0 }
        },
    );
    if order.len() > most {
        return None;
    }
    if T::MANY_TIES {
        // Sorting by distance then meets equal distances in order.
        order.sort_unstable();
    }
    shared.x.clear();
    shared.y.clear();
    shared.z.clear();
    shared.index.clear();
    shared.x.extend(order.iter().map(|&o| tree.positions.x[o as u32 as usize]));
    shared.y.extend(order.iter().map(|&o| tree.positions.y[o as u32 as usize]));
    shared.z.extend(order.iter().map(|&o| tree.positions.z[o as u32 as usize]));
    shared.index.extend(order.iter().map(|&o| (o >> 32) as u32));
    Some(bound)
}

fn search<T: Scalar>(positions: &[[T; 3]], k: usize, include_self: bool, queries: Range<usize>) -> Neighbors<T> {
    let mut index = vec![0; queries.len() * k];
    let mut sq_dist = vec![T::ZERO; queries.len() * k];
    if queries.is_empty() {
        return Neighbors { index, sq_dist };
    }
    let tree = Tree::new(positions);

    // Queries in the order of the tree, each with its row of the result.
    let mut by_query: Vec<_> = index.chunks_exact_mut(k).zip(sq_dist.chunks_exact_mut(k)).map(Some).collect();
    let mut rows: Vec<Row<'_, T>> = tree
        .positions
        .index
        .iter()
        .enumerate()
        .filter_map(|(tree_position, &i)| {
            let (index, sq_dist) = by_query.get_mut((i as usize).checked_sub(queries.start)?)?.take()?;
            Some(Row { tree_position, index, sq_dist })
        })
        .collect();

    drop(by_query);

    let height = GROUP_HEIGHT.min(tree.height);
    let mut groups = Vec::with_capacity(1 << (tree.height - height));
    let mut rest = &mut rows[..];
    for part in 0..1_usize << (tree.height - height) {
        let group = tree.range(part, height);
        let (inside, after) = rest.split_at_mut(rest.partition_point(|row| row.tree_position < group.end));
        rest = after;
        if !inside.is_empty() {
            groups.push(inside);
        }
    }
    let arch = Arch::new();
    groups.into_par_iter().for_each_init(Scratch::new, |scratch, rows| {
        arch.dispatch(Group { tree: &tree, k, include_self, rows, scratch });
    });
    Neighbors { index, sq_dist }
}
