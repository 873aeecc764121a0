//! Layouts of recordings on disk.

use std::fmt;
use std::str::FromStr;

/// Layout of a recording on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// ScanNet, exported: folders color, depth, pose and intrinsic.
    ScanNet,
    /// ScanNet's own file, `.sens`.
    Sens,
    /// Matterport3D, raw, undistorted or exported with intrinsics for each picture.
    Matterport,
    /// Replica as rendered for NICE-SLAM.
    Replica,
    /// TUM RGB-D benchmark.
    Tum,
    /// Redwood and Open3D.
    Redwood,
    /// ICL-NUIM.
    Icl,
    /// nerfstudio, instant-ngp, Blender: `transforms.json`.
    Nerfstudio,
    /// COLMAP, text or binary.
    Colmap,
    /// Polycam's raw export.
    Polycam,
    /// Record3D's `.r3d`.
    Record3d,
    /// 7-Scenes.
    SevenScenes,
    /// 3D Scanner App's export of all data.
    ScannerApp,
    /// ARKitScenes.
    ArkitScenes,
    /// ScanNet++, the iPhone's part.
    ScanNetPp,
    /// nuScenes as OpenScene prepares it.
    NuScenes,
    /// RTAB-Map's export.
    RtabMap,
    /// Stray Scanner.
    Stray,
    /// Pictures without poses, with or without depth. Each frame is used on its own.
    Images,
}

impl Layout {
    /// All layouts, in the order of detection.
    pub const ALL: [Self; 19] = [
        Self::Sens,
        Self::Record3d,
        Self::ScannerApp,
        Self::ArkitScenes,
        Self::ScanNetPp,
        Self::Stray,
        Self::RtabMap,
        Self::Polycam,
        Self::Nerfstudio,
        Self::Colmap,
        Self::Replica,
        Self::Icl,
        Self::Tum,
        Self::SevenScenes,
        Self::Matterport,
        Self::NuScenes,
        Self::ScanNet,
        Self::Redwood,
        Self::Images,
    ];

    /// Returns the name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ScanNet => "scannet",
            Self::Sens => "sens",
            Self::Matterport => "matterport",
            Self::Replica => "replica",
            Self::Tum => "tum",
            Self::Redwood => "redwood",
            Self::Icl => "icl",
            Self::Nerfstudio => "nerfstudio",
            Self::Colmap => "colmap",
            Self::Polycam => "polycam",
            Self::Record3d => "record3d",
            Self::SevenScenes => "7scenes",
            Self::ScannerApp => "3dscannerapp",
            Self::ArkitScenes => "arkitscenes",
            Self::ScanNetPp => "scannetpp",
            Self::NuScenes => "nuscenes",
            Self::RtabMap => "rtabmap",
            Self::Stray => "stray",
            Self::Images => "images",
        }
    }

    /// Returns a description of the files by which the layout is recognised.
    #[must_use]
    pub fn expects(self) -> &'static str {
        match self {
            Self::ScanNet => {
                "folders color/, pose/ (one 4x4 matrix per file), depth/, and intrinsic/intrinsic_color.txt"
            }
            Self::Sens => "a .sens file, version 4",
            Self::Matterport => {
                "undistorted_camera_parameters/*.conf with undistorted_color_images/, or matterport_color_images/ with matterport_camera_poses/, or color/, pose/ and one intrinsic/ file per picture"
            }
            Self::Replica => "traj.txt and results/ with frame*.jpg and depth*.png",
            Self::Tum => "groundtruth.txt and rgb.txt, or rgb/",
            Self::Redwood => "trajectory.log or scene/trajectory.log with folders color/ (or image/, rgb/) and depth/",
            Self::Icl => "a *.gt.freiburg trajectory with folders rgb/ and depth/",
            Self::Nerfstudio => "transforms.json",
            Self::Colmap => {
                "cameras and images as .bin or .txt in sparse/0/, sparse/ or the folder itself, and images/"
            }
            Self::Polycam => "keyframes/ with images/ and cameras/ (the raw export)",
            Self::Record3d => "an .r3d file, or its unpacked metadata and rgbd/",
            Self::SevenScenes => "frame-*.color.png with frame-*.pose.txt, in the folder or in seq-*/",
            Self::ScannerApp => "frame_*.jpg with frame_*.json, and depth_*.png",
            Self::ArkitScenes => "lowres_wide/ with lowres_wide.traj, lowres_wide_intrinsics/ and lowres_depth/",
            Self::ScanNetPp => "iphone/ with pose_intrinsic_imu.json, rgb/ and depth/",
            Self::NuScenes => "folders color/, pose/ and K/ (one .npy matrix per picture), as OpenScene prepares them",
            Self::RtabMap => "folders rgb/, depth/ and calib/ (one .yaml per picture), and poses.txt",
            Self::Stray => "odometry.csv and camera_matrix.csv with depth/, and the pictures of rgb.mp4 in rgb/",
            Self::Images => {
                "pictures (JPEG, PNG, WebP, BMP, PPM) in the folder or in color/, rgb/, images/, and depth/ if there is any"
            }
        }
    }

    pub(super) fn overview() -> String {
        let lines = Self::ALL.map(|layout| format!("  {layout}: {}", layout.expects()));
        lines.join("\n")
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Error for an unknown layout name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown layout \"{found}\"; expected one of {}", Layout::ALL.map(Layout::name).join(", "))]
pub struct UnknownLayoutName {
    /// Name that was given.
    pub found: String,
}

impl FromStr for Layout {
    type Err = UnknownLayoutName;

    /// Parses a [`name`](Self::name), upper or lower case.
    fn from_str(name: &str) -> Result<Self, UnknownLayoutName> {
        let found = Self::ALL.into_iter().find(|layout| layout.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| UnknownLayoutName { found: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for layout in Layout::ALL {
            assert_eq!(layout.to_string().parse(), Ok(layout));
            assert_eq!(layout.to_string().to_uppercase().parse(), Ok(layout));
        }
        let error = "scanet".parse::<Layout>().unwrap_err().to_string();
        assert!(error.contains("\"scanet\"") && error.contains("scannet, "), "{error}");
    }
}
