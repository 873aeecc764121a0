//! Options of `infer` and `eval` that decide how scans are labelled.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use super::affinities::AffinityArgs;
use super::networks::{ClipArgs, ImageModelArgs, WayOut as _, open_session, write_used};
use super::numbers::{cosine, iterations, length, neighbors, share, turns};
use super::progress::Bars;
use super::viewing::ViewingArgs;
use crate::gpu::DeviceSelection;
use crate::purify;
use crate::query::ensemble::Ensemble;
use crate::session::{LabelOptions, Labeller, Method, Network, NetworkChoice, Networks, Session, Words};
use crate::stages::StageTimer;

/// Options for labelling scans, apart from the words.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LabellingArgs {
    /// Way to label: geopurify looks at views and purifies, openscene is a 3D network that needs no views,
    /// ensemble is both, fusion is OpenScene's fused features alone (--fused) [default: ensemble with the built-in
    /// demo, geopurify with other weights]
    #[arg(long, value_name = "NAME")]
    method: Option<Method>,
    /// Weight of the 3D network in the ensemble, 0 to 1; the views have the rest
    #[arg(long, value_name = "SHARE", default_value_t = LabelOptions::default().share, value_parser = share)]
    share: f32,
    /// Number of turns about the up direction over which the 3D network's answers are averaged, 1 to 64
    #[arg(long, value_name = "N", default_value_t = LabelOptions::default().turns, value_parser = turns)]
    turns: usize,
    /// Published rule of the ensemble, in place of --share: larger takes for each point the one with the larger
    /// cosine, as OpenScene, mean takes the mean of both, as CUA-O3D
    #[arg(long, value_name = "RULE")]
    ensemble: Option<Ensemble>,
    /// OpenScene's fused features of the scan (.pt), or a folder of them, in place of views: for --method
    /// fusion, or for --method ensemble with a published 3D network
    #[arg(long, value_name = "FILE|DIR")]
    fused: Option<PathBuf>,
    /// Number of runs of a published 3D network whose scores --compat reference adds, each on voxels drawn at
    /// random, 1 to 64
    #[arg(long, value_name = "N", default_value_t = LabelOptions::default().repeats, value_parser = turns)]
    repeats: usize,
    /// Leave points unlabelled whose cosine with the nearest word is below this, -1 to 1
    #[arg(long, value_name = "COSINE", value_parser = cosine, allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Seed for --compat reference, which rotates and scales every scene at random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Edge length of a voxel, in the scan's unit [default: 2 cm, larger if most voxels would be alone]
    #[arg(long, value_parser = length)]
    voxel: Option<f64>,
    /// Number of neighbours of each voxel, 1 to 128
    #[arg(long, default_value_t = purify::Settings::default().neighbors, value_parser = neighbors)]
    neighbors: usize,
    /// Number of times that the affinities are applied; 0 leaves the features as they are [default: 19; 0 for a
    /// published 3D network]
    #[arg(long, value_parser = iterations)]
    iterations: Option<usize>,
    #[command(flatten)]
    affinities: AffinityArgs,
    #[command(flatten)]
    viewing: ViewingArgs,
    #[command(flatten)]
    image: ImageModelArgs,
    /// Weights of the student: a .pth of the reference, safetensors, or a name in the store [default: the
    /// store's `student`, else the built-in `student-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    student: Option<PathBuf>,
    /// Weights of the 3D network: a checkpoint of OpenScene or CUA-O3D, safetensors, or a name in the store
    /// [default: the store's `openscene`, else the built-in `openscene-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    openscene: Option<PathBuf>,
    /// The 3D network's configuration (JSON), if the shapes in the file do not determine it
    #[arg(long, value_name = "FILE")]
    openscene_config: Option<PathBuf>,
    #[command(flatten)]
    clip: ClipArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
}

impl LabellingArgs {
    pub(super) fn options(&self) -> LabelOptions {
        LabelOptions {
            method: self.method,
            image_model: self.image.kind(),
            share: self.share,
            turns: self.turns,
            ensemble: self.ensemble,
            fused: self.fused.clone(),
            repeats: self.repeats,
            affinities: self.affinities.kind(),
            sharpness: self.affinities.sharpness,
            threshold: self.threshold,
            seed: self.seed,
            voxel: self.voxel,
            neighbors: self.neighbors,
            iterations: self.iterations,
            views: self.viewing.settings(),
        }
    }

    pub(super) fn networks(&self) -> Networks {
        let student = NetworkChoice { weights: self.student.clone(), config: None };
        let openscene = NetworkChoice { weights: self.openscene.clone(), config: self.openscene_config.clone() };
        Networks { student, openscene, clip: self.clip.choice(), ..self.image.networks() }
    }

    /// Takes the device of another command's option.
    #[cfg(feature = "viewer")]
    pub(super) fn set_device(&mut self, device: DeviceSelection) {
        self.device = device;
    }

    /// The networks that labelling needs.
    pub(super) fn needed(&self) -> Result<Vec<Network>> {
        self.image.check()?;
        Ok(self.options().plan(&self.networks())?.networks)
    }

    pub(super) fn session(&self) -> Result<Session> {
        open_session(self.device, self.networks(), &self.needed()?)
    }

    /// Writes what a run would use.
    pub(super) fn write_used(&self, out: &mut dyn Write) -> Result<()> {
        write_used(out, self.device, &self.networks(), &self.needed()?)
    }

    /// Loads the networks and embeds the words, with a progress bar.
    pub(super) fn labeller<'s>(&self, session: &'s Session, words: Words) -> Result<Labeller<'s>> {
        let mut bars = Bars::new();
        let mut progress = |stage, share| bars.show(stage, share);
        let mut timer = StageTimer::with_progress(&mut progress);
        session.labeller(words, self.options(), &mut timer).or_configuration()
    }
}

/// Removes `name` from the front of an error's text: errors of the library name the file themselves.
pub(super) fn without_prefix<'a>(text: &'a str, name: &str) -> &'a str {
    text.strip_prefix(name).map_or(text, |rest| rest.trim_start_matches(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_counts_are_checked_before_any_work() {
        assert_eq!((length("0.5"), neighbors("128")), (Ok(0.5), Ok(128)));
        assert!(["0", "-1", "inf", "NaN", "x"].into_iter().all(|text| length(text).is_err()));
        assert!(["0", "129", "-1"].into_iter().all(|text| neighbors(text).is_err()));
    }

    #[test]
    fn thresholds_are_cosines() {
        assert_eq!(cosine("-0.5"), Ok(-0.5));
        assert!(cosine("1.5").is_err() && cosine("NaN").is_err() && cosine("x").is_err());
    }
}
