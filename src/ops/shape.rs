use super::OpError;

/// Checks the shapes of one operation's arguments against named dimensions: the first tensor that
/// uses a name binds its size, the later ones must agree.
pub(crate) struct ShapeCheck {
    op: &'static str,
    bound: Vec<(&'static str, usize)>,
}

/// A dimension by name (bound on first use) or by size.
pub(crate) enum Dim {
    Named(&'static str),
    Fixed(usize),
}

impl From<&'static str> for Dim {
    fn from(name: &'static str) -> Self {
        Self::Named(name)
    }
}

impl From<usize> for Dim {
    fn from(size: usize) -> Self {
        Self::Fixed(size)
    }
}

impl ShapeCheck {
    pub(crate) fn new(op: &'static str) -> Self {
        Self { op, bound: Vec::new() }
    }

    pub(crate) fn check<const D: usize>(
        &mut self,
        tensor: &'static str,
        found: [usize; D],
        expected: [Dim; D],
    ) -> Result<(), OpError> {
        let mut agrees = true;
        let mut names = Vec::with_capacity(D);
        for (size, dim) in found.into_iter().zip(expected) {
            match dim {
                Dim::Fixed(wanted) => {
                    agrees &= size == wanted;
                    names.push(wanted.to_string());
                }
                Dim::Named(name) => match self.bound.iter().find(|(n, _)| *n == name) {
                    Some(&(_, wanted)) => {
                        agrees &= size == wanted;
                        names.push(format!("{name} = {wanted}"));
                    }
                    None => {
                        self.bound.push((name, size));
                        names.push(name.to_owned());
                    }
                },
            }
        }
        if agrees {
            return Ok(());
        }
        Err(OpError::Shape { op: self.op, tensor, found: found.to_vec(), expected: names.join(", ") })
    }

    pub(crate) fn value(&self, message: impl Into<String>) -> OpError {
        OpError::Value { op: self.op, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_bound_once_holds_for_the_later_tensors() {
        let mut check = ShapeCheck::new("knn");
        check.check("points", [7, 3], ["N".into(), 3.into()]).unwrap();
        let error = check.check("neighbors", [6, 4], ["N".into(), "K".into()]).unwrap_err();
        assert_eq!(error.to_string(), "knn: neighbors is [6, 4], expected [N = 7, K]");
    }
}
