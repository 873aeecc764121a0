//! NumPy's arrays inside a pickle, as `torch.save` writes them.

/// Element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArrayType {
    kind: Kind,
    /// Bytes of an element.
    pub size: usize,
    /// True if the most significant byte comes first.
    is_big: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
}

/// An array whose elements are bytes of the pickle.
#[derive(Debug)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    /// Product of `shape`.
    pub numel: usize,
    pub element: ArrayType,
    /// True if the first index varies fastest.
    pub is_fortran: bool,
    /// Index of the value that holds the bytes.
    pub data: u32,
}

impl ArrayType {
    /// The type of this name, such as "f8"; `None` for types that are not read.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (kind, size) = match name {
            "f4" => (Kind::Float, 4),
            "f8" => (Kind::Float, 8),
            "i1" => (Kind::Signed, 1),
            "i2" => (Kind::Signed, 2),
            "i4" => (Kind::Signed, 4),
            "i8" => (Kind::Signed, 8),
            "b1" | "u1" => (Kind::Unsigned, 1),
            "u2" => (Kind::Unsigned, 2),
            "u4" => (Kind::Unsigned, 4),
            "u8" => (Kind::Unsigned, 8),
            _ => return None,
        };
        Some(Self { kind, size, is_big: false })
    }

    /// The same type, with the most significant byte first or last.
    pub(super) fn ordered(self, is_big: bool) -> Self {
        Self { is_big, ..self }
    }

    /// The number in `bytes`, which are those of one element.
    fn number(self, bytes: &[u8]) -> f64 {
        let mut wide = [0; 8];
        for (place, &byte) in wide.iter_mut().zip(bytes) {
            *place = byte;
        }
        if self.is_big {
            wide[..self.size].reverse();
        }
        let bits = u64::from_le_bytes(wide);
        match self.kind {
            Kind::Float if self.size == 4 => f32::from_bits(bits as u32).into(),
            Kind::Float => f64::from_bits(bits),
            Kind::Unsigned => bits as f64,
            Kind::Signed => {
                let unused = 64 - 8 * self.size as u32;
                ((bits << unused).cast_signed() >> unused) as f64
            }
        }
    }
}

impl Array {
    /// The elements in row-major order. `bytes` must have `numel` elements.
    pub(super) fn numbers(&self, bytes: &[u8]) -> Vec<f64> {
        let stored: Vec<f64> = bytes.chunks_exact(self.element.size).map(|bytes| self.element.number(bytes)).collect();
        match (self.is_fortran, self.shape.as_slice()) {
            (true, &[rows, columns]) => (0..rows * columns).map(|i| stored[i % columns * rows + i / columns]).collect(),
            _ => stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_type_are_numbers() {
        let number = |name: &str, bytes: &[u8]| ArrayType::parse(name).unwrap().number(bytes);
        assert_eq!(number("f8", &2.5_f64.to_le_bytes()), 2.5);
        assert_eq!(number("f4", &(-0.5_f32).to_le_bytes()), -0.5);
        assert_eq!((number("i1", &[0x9c]), number("u1", &[0x9c])), (-100.0, 156.0));
        assert_eq!((number("i2", &[0xff, 0xff]), number("u2", &[0xff, 0xff])), (-1.0, 65535.0));
        assert_eq!((number("i4", &(-7_i32).to_le_bytes()), number("i8", &(-7_i64).to_le_bytes())), (-7.0, -7.0));
        let big = ArrayType::parse("i4").unwrap().ordered(true);
        assert_eq!(big.number(&(-300_i32).to_be_bytes()), -300.0);
        assert_eq!(ArrayType::parse("O8"), None);
    }

    #[test]
    fn columns_come_first_where_the_file_says_so() {
        let element = ArrayType::parse("u1").unwrap();
        let array = |is_fortran| Array { shape: vec![2, 3], numel: 6, element, is_fortran, data: 0 };
        assert_eq!(array(false).numbers(&[1, 2, 3, 4, 5, 6]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(array(true).numbers(&[1, 4, 2, 5, 3, 6]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
