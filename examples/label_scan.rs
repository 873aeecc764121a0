//! Labels a scan and finds the chairs in it: `cargo run --release --example label_scan`.

use std::path::Path;

use geopurify::{LabelOptions, Scene, Session, SessionError, Words};

fn main() -> Result<(), SessionError> {
    let session = Session::open()?;
    let scan = Scene::read(Path::new("examples/room.ply"))?;
    let words = Words::new(["wall", "floor", "chair", "table", "bed"]);
    session.label(&scan, words, LabelOptions::default(), Path::new("room-labels"))?;
    let answer = session.query(Path::new("room-labels"), "chair")?;
    for place in answer.places.iter().take(3) {
        println!("{:.2?} to {:.2?}: cosine {:.2}", place.low, place.high, place.best);
    }
    Ok(())
}
