//! Many rooms, several at once.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

use super::{Assets, Outcome, Settings, Split, SynthError, write_room};

/// Number of rooms that are generated at once. Each uses all cores most of the time, and takes memory.
const MOST_AT_ONCE: usize = 8;

/// Most rooms of one call.
const MOST_ROOMS: usize = 100_000;

/// Share of the rooms for validation, and share for testing.
const HELD_OUT: f64 = 0.15;

/// A room of [`write_rooms`].
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// Split of the data set.
    pub split: Split,
    /// Number of the room in its split, from 1.
    pub number: usize,
    /// The room, and whether it is new.
    pub outcome: Outcome,
}

/// Divides `rooms` over [`Split::ALL`]: 70 % for training, 15 % for validation and 15 % for testing. Each
/// split gets at least one room if there are three. Of two rooms, one is for training and one for testing.
#[must_use]
pub fn counts_of(rooms: usize) -> [usize; 3] {
    if rooms == 2 {
        return [1, 0, 1];
    }
    let share = (rooms as f64 * HELD_OUT).round() as usize;
    let held_out = if rooms >= 3 { share.max(1) } else { 0 };
    [rooms.saturating_sub(2 * held_out), held_out, held_out]
}

/// State that the threads share.
struct State<'a> {
    made: Vec<Room>,
    error: Option<SynthError>,
    progress: &'a mut (dyn FnMut(f64) + Send),
}

/// Generates `counts` rooms of [`Split::ALL`] below `root`, as [`write_room`] does. Calls `progress` with the
/// share of the rooms that are there. Returns the rooms in the order of their splits and numbers.
///
/// # Errors
/// [`SynthError::Setting`], [`SynthError::Stopped`] if a room fails. No other room is begun after it.
pub fn write_rooms(
    root: &Path,
    counts: [usize; 3],
    settings: &Settings,
    assets: Option<&Assets>,
    device: &Device,
    progress: &mut (dyn FnMut(f64) + Send),
) -> Result<Vec<Room>, SynthError> {
    settings.check()?;
    let all = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
    if all.is_none_or(|all| all > MOST_ROOMS) {
        let found = all.map_or_else(|| "more than can be counted".to_owned(), |all| all.to_string());
        return Err(SynthError::Setting { what: "the number of rooms", found, expected: "at most 100000" });
    }
    let numbered = |(split, count): (Split, usize)| (1..=count).map(move |number| (split, number));
    let jobs: Vec<(Split, usize)> = Split::ALL.into_iter().zip(counts).flat_map(numbered).collect();
    progress(0.0);
    let next = AtomicUsize::new(0);
    let state = Mutex::new(State { made: Vec::new(), error: None, progress });
    let work = || {
        while let Some(&(split, number)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let made = write_room(root, split, number, settings, assets, device);
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            match made {
                Ok(outcome) => state.made.push(Room { split, number, outcome }),
                Err(error) => {
                    // No thread begins another room.
                    next.store(jobs.len(), Ordering::Relaxed);
                    state.error.get_or_insert(error);
                }
            }
            let share = state.made.len() as f64 / jobs.len() as f64;
            (state.progress)(share);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_AT_ONCE).min(jobs.len());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let State { mut made, error, .. } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = error {
        return Err(SynthError::Stopped { made: made.len(), rooms: jobs.len(), source: Box::new(error) });
    }
    made.sort_unstable_by_key(|room| (room.split, room.number));
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_split_gets_a_share() {
        assert_eq!(counts_of(40), [28, 6, 6]);
        assert_eq!(counts_of(3), [1, 1, 1]);
        assert_eq!(counts_of(2), [1, 0, 1]);
        assert_eq!(counts_of(0), [0, 0, 0]);
    }
}
