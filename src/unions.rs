//! Groups that grow together: a union-find.

/// Numbers in groups. The root of a group is its first member, so the same pairs give the same groups in any order.
#[derive(Clone, Debug)]
pub(crate) struct Unions(Vec<usize>);

impl Unions {
    /// Each of `0..count` in a group of its own.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    /// First member of the group of `i`. The way to it is halved for the next time.
    pub(crate) fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    /// Makes one group of two.
    pub(crate) fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_first_member_in_any_order() {
        let pairs = [(4, 3), (1, 5), (3, 1), (6, 6)];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut unions = Unions::new(7);
            order.into_iter().for_each(|i| unions.unite(pairs[i].0, pairs[i].1));
            assert_eq!((0..7).map(|i| unions.root(i)).collect::<Vec<_>>(), [0, 1, 2, 1, 1, 1, 6]);
        }
    }
}
