//! Row numbers: the row of each view's table that every point uses, in memory or in a file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;

/// Row numbers `[V, N]`, two bytes each. Spilled views are stored in order in an unnamed temporary file. The
/// system removes it when the process ends.
#[derive(Debug, Default)]
pub(super) struct RowNumbers {
    in_memory: Vec<Vec<u16>>,
    file: Option<File>,
    num_spilled: usize,
}

impl RowNumbers {
    pub(super) fn num_views(&self) -> usize {
        self.in_memory.len() + self.num_spilled
    }

    pub(super) fn num_spilled(&self) -> usize {
        self.num_spilled
    }

    pub(super) fn bytes_in_memory(&self) -> u64 {
        self.in_memory.iter().map(|view| size_of_val(view.as_slice()) as u64).sum()
    }

    /// Adds a view. After the first spilled view, all views are spilled.
    pub(super) fn push(&mut self, numbers: Vec<u16>, spill: bool) -> io::Result<()> {
        if !spill && self.file.is_none() {
            self.in_memory.push(numbers);
            return Ok(());
        }
        let mut file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        // Overwrites the rest of a failed write.
        file.seek(SeekFrom::Start(self.num_spilled as u64 * size_of_val(numbers.as_slice()) as u64))?;
        file.write_all(bytemuck::cast_slice(&numbers))?;
        self.num_spilled += 1;
        Ok(())
    }

    /// Reads `[V, points]`; every view has `num_points` points.
    pub(super) fn read(&self, points: Range<usize>, num_points: usize) -> io::Result<Vec<u16>> {
        let mut numbers = vec![0; self.num_views() * points.len()];
        let (kept, spilled) = numbers.split_at_mut(self.in_memory.len() * points.len());
        for (to, view) in kept.chunks_exact_mut(points.len().max(1)).zip(&self.in_memory) {
            to.copy_from_slice(&view[points.clone()]);
        }
        if let Some(mut file) = self.file.as_ref() {
            for (view, to) in spilled.chunks_exact_mut(points.len().max(1)).enumerate() {
                let first = view as u64 * num_points as u64 + points.start as u64;
                file.seek(SeekFrom::Start(first * size_of::<u16>() as u64))?;
                file.read_exact(bytemuck::cast_slice_mut(to))?;
            }
        }
        Ok(numbers)
    }

    /// Reads `[N]` of one view.
    pub(super) fn read_view(&self, view: usize, num_points: usize) -> io::Result<Vec<u16>> {
        if let Some(numbers) = self.in_memory.get(view) {
            return Ok(numbers.clone());
        }
        let mut numbers = vec![0; num_points];
        if let Some(mut file) = self.file.as_ref() {
            let first = (view - self.in_memory.len()) as u64 * num_points as u64;
            file.seek(SeekFrom::Start(first * size_of::<u16>() as u64))?;
            file.read_exact(bytemuck::cast_slice_mut(&mut numbers))?;
        }
        Ok(numbers)
    }
}
