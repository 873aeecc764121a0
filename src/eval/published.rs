//! Published figures on the same data sets, for comparison.

use serde::Serialize;

use crate::labels::Preset;

/// Published figures of a method, in percent, counted by its authors' rules.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Published {
    /// Name of the method.
    pub method: &'static str,
    /// Data set.
    pub data: &'static str,
    /// Mean intersection over union.
    pub mean_iou: Option<f64>,
    /// Mean accuracy.
    pub mean_accuracy: Option<f64>,
    /// Mean intersection over union without wall, floor and ceiling.
    pub foreground_mean_iou: Option<f64>,
    /// Mean accuracy without wall, floor and ceiling.
    pub foreground_mean_accuracy: Option<f64>,
    /// Source of the figures.
    pub source: &'static str,
}

const GEOPURIFY: Published = Published {
    method: "GeoPurify",
    data: "",
    mean_iou: None,
    mean_accuracy: None,
    foreground_mean_iou: None,
    foreground_mean_accuracy: None,
    source: "README of the published code (Dou et al., ICLR 2026)",
};

const SCANNET20: [Published; 1] =
    [Published { data: "ScanNetV2", mean_iou: Some(55.1), mean_accuracy: Some(72.5), ..GEOPURIFY }];

const SCANNET200: [Published; 1] = [Published {
    data: "ScanNet200",
    foreground_mean_iou: Some(11.9),
    foreground_mean_accuracy: Some(22.8),
    ..GEOPURIFY
}];

const MATTERPORT21: [Published; 1] =
    [Published { data: "Matterport3D", mean_iou: Some(40.2), mean_accuracy: Some(62.4), ..GEOPURIFY }];

/// Published figures for the classes of `preset` and scenes of these names. Empty if the scenes are not those
/// of the data set.
#[must_use]
pub fn published<'a>(preset: &str, scenes: impl IntoIterator<Item = &'a str>) -> &'static [Published] {
    let (figures, is_of_data_set): (&[Published], fn(&str) -> bool) = match preset {
        name if name == Preset::SCANNET20.name => (&SCANNET20, is_scannet),
        name if name == Preset::SCANNET200.name => (&SCANNET200, is_scannet),
        name if name == Preset::MATTERPORT21.name => (&MATTERPORT21, is_matterport),
        _ => return &[],
    };
    let mut scenes = scenes.into_iter().peekable();
    if scenes.peek().is_some() && scenes.all(is_of_data_set) { figures } else { &[] }
}

/// What a row of the paper's tables measures, apart from the whole method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaperRow {
    /// The whole method: T = 18, and a student that learned from 20 scenes with hybrid negatives.
    Full,
    /// The lifted features of X-Decoder, not purified.
    Unpurified,
    /// The whole method with another T.
    Iterations(usize),
    /// The lifted features of LSeg, not purified.
    LSegUnpurified,
    /// Those features, purified.
    LSegPurified,
}

/// Source of the figures of single rows.
const PAPER: Published = Published {
    source: "mIoU: the paper (Dou et al., ICLR 2026); mAcc: logs of its validation in the history of the published code",
    ..GEOPURIFY
};

const fn row(method: &'static str, mean_iou: f64, mean_accuracy: Option<f64>) -> Published {
    Published { method, data: "ScanNetV2", mean_iou: Some(mean_iou), mean_accuracy, ..PAPER }
}

/// Published figures of a row of the paper's tables, for the classes of `preset`: ScanNet's 20 or Matterport3D's 21.
/// `None` if they are not known for certain.
#[must_use]
pub fn of_paper(preset: &str, paper_row: PaperRow) -> Option<Published> {
    if preset == Preset::MATTERPORT21.name {
        return (paper_row == PaperRow::Full).then(|| MATTERPORT21[0]);
    }
    match paper_row {
        _ if preset != Preset::SCANNET20.name => None,
        PaperRow::Full | PaperRow::Iterations(18) => Some(SCANNET20[0]),
        PaperRow::Unpurified => Some(row("X-Decoder, lifted", 50.2, Some(68.1))),
        PaperRow::Iterations(1) => Some(row("GeoPurify, T = 1", 52.3, Some(70.2))),
        PaperRow::Iterations(36) => Some(row("GeoPurify, T = 36", 55.1, None)),
        PaperRow::Iterations(_) => None,
        PaperRow::LSegUnpurified => Some(row("LSeg, lifted", 48.6, Some(61.6))),
        PaperRow::LSegPurified => Some(row("LSeg and GeoPurify", 51.2, None)),
    }
}

/// True for a name such as `scene0123_00`.
fn is_scannet(name: &str) -> bool {
    let parts = name.strip_prefix("scene").and_then(|rest| rest.split_once('_'));
    let is_number = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    parts.is_some_and(|(space, visit)| is_number(space, 4) && is_number(visit, 2))
}

/// True for a name such as `17DRP5sb8fy_region3`.
fn is_matterport(name: &str) -> bool {
    let parts = name.rsplit_once("_region");
    parts.is_some_and(|(scan, region)| {
        scan.len() == 11 && !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_paper_have_the_figures_that_are_known() {
        let mean_iou = |preset, row| of_paper(preset, row).and_then(|published| published.mean_iou);
        for (row, expected) in [
            (PaperRow::Full, Some(55.1)),
            (PaperRow::Unpurified, Some(50.2)),
            (PaperRow::Iterations(1), Some(52.3)),
            (PaperRow::Iterations(36), Some(55.1)),
            (PaperRow::Iterations(2), None),
            (PaperRow::LSegUnpurified, Some(48.6)),
            (PaperRow::LSegPurified, Some(51.2)),
        ] {
            assert_eq!(mean_iou("scannet20", row), expected, "{row:?}");
        }
        assert_eq!(mean_iou("matterport21", PaperRow::Full), Some(40.2));
        assert_eq!(mean_iou("matterport21", PaperRow::Unpurified), None);
        assert_eq!(mean_iou("scannet200", PaperRow::Full), None);
        assert_eq!(of_paper("scannet20", PaperRow::Iterations(36)).unwrap().mean_accuracy, None);
    }

    #[test]
    fn figures_stand_beside_scenes_of_their_data_set_only() {
        assert_eq!(published("scannet20", ["scene0011_00", "scene0011_01"])[0].mean_iou, Some(55.1));
        assert!(published("scannet20", ["scene0011_00", "room_0001"]).is_empty());
        assert!(published("scannet20", []).is_empty());
        assert_eq!(published("scannet200", ["scene0011_00"])[0].foreground_mean_iou, Some(11.9));
        assert_eq!(published("matterport21", ["17DRP5sb8fy_region3"])[0].mean_accuracy, Some(62.4));
        assert!(published("matterport40", ["17DRP5sb8fy_region3"]).is_empty());
        assert!(published("matterport21", ["scene0011_00", "a_region"]).is_empty());
    }
}
