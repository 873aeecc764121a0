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
