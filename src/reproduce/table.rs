//! The paper's tables as data: rows, how each is measured, and the figures published for it.

use std::fmt;
use std::str::FromStr;

use crate::ablation::Negatives;
use crate::counted::counted;
use crate::eval::published::{PaperRow, Published, of_paper};
use crate::labels::Preset;
use crate::session::ImageModelKind;

/// A table of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The method beside others.
    Main,
    /// Trained on one data set, measured on the other.
    Transfer,
    /// Parts of the method.
    Ablation,
    /// Image models, without and with purification.
    Backbone,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 4] = [Self::Main, Self::Transfer, Self::Ablation, Self::Backbone];
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Main => "main",
            Self::Transfer => "transfer",
            Self::Ablation => "ablation",
            Self::Backbone => "backbone",
        })
    }
}

/// There is no table of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no table; expected main, transfer, ablation or backbone")]
pub struct UnknownTable(String);

impl FromStr for Table {
    type Err = UnknownTable;

    fn from_str(name: &str) -> Result<Self, UnknownTable> {
        Self::ALL.into_iter().find(|table| table.to_string() == name).ok_or_else(|| UnknownTable(name.to_owned()))
    }
}

/// A data set of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataSet {
    /// ScanNet.
    ScanNet,
    /// Matterport3D.
    Matterport,
}

impl DataSet {
    /// Both data sets.
    pub const ALL: [Self; 2] = [Self::ScanNet, Self::Matterport];

    /// Name for files.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::ScanNet => "scannet",
            Self::Matterport => "matterport",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::ScanNet => Self::Matterport,
            Self::Matterport => Self::ScanNet,
        }
    }
}

impl fmt::Display for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ScanNet => "ScanNet",
            Self::Matterport => "Matterport3D",
        })
    }
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learner {
    /// A student on the features of an image model.
    Student(Negatives, ImageModelKind),
    /// A 3D network on the features of X-Decoder.
    Network,
}

/// A training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Training {
    pub data: DataSet,
    /// Number of scenes to learn from.
    pub scenes: usize,
    pub learner: Learner,
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, scenes, learner } = self;
        let data = data.key();
        match learner {
            Learner::Student(negatives, image_model) => {
                let negatives = match negatives {
                    Negatives::Hybrid => "hybrid",
                    Negatives::Macro => "macro",
                };
                write!(f, "student-{data}-{scenes}-scenes-{negatives}")?;
                if *image_model == ImageModelKind::XDecoder { Ok(()) } else { write!(f, "-{image_model}") }
            }
            Learner::Network => write!(f, "network-{data}-{scenes}-scenes"),
        }
    }
}

/// How scenes are labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By lifted features, not purified.
    Lifted(ImageModelKind),
    /// By lifted features, purified by a student trained here, with this T.
    Student(Training, usize),
    /// By lifted features, purified by the student that is given or installed, with this T.
    GivenStudent(usize),
    /// By a 3D network trained here.
    Network(Training),
    /// By OpenScene's published 3D network.
    OpenScene,
    /// By CUA-O3D's published 3D network.
    CuaO3d,
}

impl Way {
    /// The training that it needs.
    pub(super) fn training(self) -> Option<Training> {
        match self {
            Self::Student(training, _) | Self::Network(training) => Some(training),
            Self::Lifted(_) | Self::GivenStudent(_) | Self::OpenScene | Self::CuaO3d => None,
        }
    }
}

/// An evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Data set on which it is measured.
    pub data: DataSet,
    pub way: Way,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-by-", self.data.key())?;
        match self.way {
            Way::Lifted(ImageModelKind::XDecoder) => f.write_str("lifted"),
            Way::Lifted(image_model) => write!(f, "lifted-{image_model}"),
            Way::Student(training, iterations) => write!(f, "{training}-t{iterations}"),
            Way::GivenStudent(iterations) => write!(f, "given-student-t{iterations}"),
            Way::Network(training) => write!(f, "{training}"),
            Way::OpenScene => f.write_str("openscene"),
            Way::CuaO3d => f.write_str("cua-o3d"),
        }
    }
}

/// How the figures of a row come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// They are measured here.
    Measured(Step),
    /// They cannot be measured, for this reason.
    PublishedOnly(&'static str),
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Part of the table.
    pub group: String,
    pub name: String,
    pub source: Source,
    pub published: Option<Published>,
}

/// Numbers that decide which rows a table has.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSettings {
    /// Numbers of training scenes in the ablation.
    pub scenes: Vec<usize>,
    /// Number of training scenes everywhere else.
    pub usual_scenes: usize,
    /// Values of T in the ablation, counted as in the paper: the affinities are applied T + 1 times.
    pub iterations: Vec<usize>,
    /// T everywhere else.
    pub usual_iterations: usize,
}

impl Default for TableSettings {
    /// The paper's.
    fn default() -> Self {
        Self { scenes: vec![10, 20, 50], usual_scenes: 20, iterations: vec![1, 18, 36], usual_iterations: 18 }
    }
}

/// Builds the rows of tables.
struct Builder<'a> {
    settings: &'a TableSettings,
    /// Classes of each data set.
    presets: [Preset; 2],
}

const XDECODER: ImageModelKind = ImageModelKind::XDecoder;

/// Rows of `table`, for the classes `presets` of each data set. The ablation is measured on `ablated`.
pub(super) fn rows(table: Table, settings: &TableSettings, presets: [Preset; 2], ablated: DataSet) -> Vec<Row> {
    let builder = Builder { settings, presets };
    match table {
        Table::Main => DataSet::ALL.into_iter().flat_map(|data| builder.main(data)).collect(),
        Table::Transfer => DataSet::ALL.into_iter().flat_map(|data| builder.transfer(data)).collect(),
        Table::Ablation => builder.ablation(ablated),
        Table::Backbone => DataSet::ALL.into_iter().flat_map(|data| builder.backbone(data)).collect(),
    }
}

impl Builder<'_> {
    fn row(&self, data: DataSet, name: impl Into<String>, way: Way, paper: Option<PaperRow>) -> Row {
        let preset = self.presets[data as usize];
        Row {
            group: format!("Measured on {data}"),
            name: name.into(),
            source: Source::Measured(Step { data, way }),
            published: paper.and_then(|row| of_paper(preset.name, row)),
        }
    }

    /// The usual student of a data set.
    fn student(&self, data: DataSet, image_model: ImageModelKind) -> Training {
        Training { data, scenes: self.settings.usual_scenes, learner: Learner::Student(Negatives::Hybrid, image_model) }
    }

    fn network(&self, data: DataSet) -> Training {
        Training { data, scenes: self.settings.usual_scenes, learner: Learner::Network }
    }

    /// The whole method with a student that learned from `data`.
    fn full(&self, data: DataSet) -> Way {
        Way::Student(self.student(data, XDECODER), self.settings.usual_iterations)
    }

    fn main(&self, data: DataSet) -> Vec<Row> {
        let TableSettings { usual_scenes: scenes, usual_iterations, .. } = self.settings;
        vec![
            self.row(data, "OpenScene, 3D", Way::OpenScene, None),
            self.row(data, "CUA-O3D, 3D", Way::CuaO3d, None),
            self.row(
                data,
                format!("3D network of this kind, trained here on the {} of GeoPurify", counted(*scenes, "scene")),
                Way::Network(self.network(data)),
                None,
            ),
            Row {
                group: format!("Measured on {data}"),
                name: "OV3D".to_owned(),
                source: Source::PublishedOnly(
                    "no public code or weights are known, and no published figure is at hand",
                ),
                published: None,
            },
            self.row(data, "No purification", Way::Lifted(XDECODER), Some(PaperRow::Unpurified)),
            self.row(
                data,
                "GeoPurify, the student that is installed",
                Way::GivenStudent(*usual_iterations),
                Some(PaperRow::Full),
            ),
            self.row(
                data,
                format!("GeoPurify, a student trained here on {}", counted(*scenes, "scene")),
                self.full(data),
                Some(PaperRow::Full),
            ),
        ]
    }

    fn transfer(&self, data: DataSet) -> Vec<Row> {
        let other = data.other();
        let own = Some(PaperRow::Full);
        vec![
            self.row(data, "No purification", Way::Lifted(XDECODER), Some(PaperRow::Unpurified)),
            self.row(data, format!("GeoPurify, trained on {data}"), self.full(data), own),
            self.row(data, format!("GeoPurify, trained on {other}"), self.full(other), None),
            self.row(data, format!("3D network, trained on {data}"), Way::Network(self.network(data)), None),
            self.row(data, format!("3D network, trained on {other}"), Way::Network(self.network(other)), None),
        ]
    }

    fn ablation(&self, data: DataSet) -> Vec<Row> {
        let TableSettings { scenes, usual_iterations, iterations, .. } = self.settings;
        let in_group = |group: &str, row: Row| Row { group: format!("{group}, on {data}"), ..row };
        let usual = self.student(data, XDECODER);
        let mut rows = vec![in_group(
            "Purification",
            self.row(data, "No purification", Way::Lifted(XDECODER), Some(PaperRow::Unpurified)),
        )];
        rows.push(in_group("Purification", self.row(data, "GeoPurify", self.full(data), Some(PaperRow::Full))));
        for &t in iterations {
            let paper = Some(PaperRow::Iterations(t));
            rows.push(in_group("Iterations", self.row(data, format!("T = {t}"), Way::Student(usual, t), paper)));
        }
        for (name, negatives) in [("macro negatives alone", Negatives::Macro), ("hybrid negatives", Negatives::Hybrid)]
        {
            let training = Training { learner: Learner::Student(negatives, XDECODER), ..usual };
            let paper = (negatives == Negatives::Hybrid).then_some(PaperRow::Full);
            rows.push(in_group("Negatives", self.row(data, name, Way::Student(training, *usual_iterations), paper)));
        }
        for &scenes in scenes {
            let way = Way::Student(Training { scenes, ..usual }, *usual_iterations);
            // The published recipe takes 20 scenes.
            let paper = (scenes == TableSettings::default().usual_scenes).then_some(PaperRow::Full);
            rows.push(in_group("Training scenes", self.row(data, counted(scenes, "scene"), way, paper)));
        }
        rows
    }

    fn backbone(&self, data: DataSet) -> Vec<Row> {
        let lseg = ImageModelKind::LSeg;
        let purified = Way::Student(self.student(data, lseg), self.settings.usual_iterations);
        vec![
            self.row(data, "X-Decoder", Way::Lifted(XDECODER), Some(PaperRow::Unpurified)),
            self.row(data, "X-Decoder and GeoPurify", self.full(data), Some(PaperRow::Full)),
            self.row(data, "LSeg", Way::Lifted(lseg), Some(PaperRow::LSegUnpurified)),
            self.row(data, "LSeg and GeoPurify", purified, Some(PaperRow::LSegPurified)),
        ]
    }
}

/// The evaluations of `rows`, each once, in their order.
pub(super) fn steps(rows: &[Row]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for row in rows {
        if let Source::Measured(step) = row.source
            && !steps.contains(&step)
        {
            steps.push(step);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(table: Table) -> Vec<Row> {
        rows(table, &TableSettings::default(), [Preset::SCANNET20, Preset::MATTERPORT21], DataSet::ScanNet)
    }

    #[test]
    fn tables_are_read_by_their_names() {
        for table in Table::ALL {
            assert_eq!(table.to_string().parse(), Ok(table));
        }
        let message = "3".parse::<Table>().unwrap_err().to_string();
        assert_eq!(message, "'3' is no table; expected main, transfer, ablation or backbone");
    }

    #[test]
    fn rows_share_steps_and_have_the_published_figures() {
        let main = of(Table::Main);
        assert_eq!((main.len(), steps(&main).len()), (14, 12));
        let published = |rows: &[Row], name: &str| {
            rows.iter().find(|row| row.name == name).unwrap().published.and_then(|published| published.mean_iou)
        };
        assert_eq!(published(&main, "GeoPurify, a student trained here on 20 scenes"), Some(55.1));
        assert_eq!((published(&main, "No purification"), published(&main, "OV3D")), (Some(50.2), None));
        assert_eq!(main[13].published.unwrap().mean_accuracy, Some(62.4));

        let ablation = of(Table::Ablation);
        let names: Vec<String> = steps(&ablation).iter().map(ToString::to_string).collect();
        let own = "scannet-by-student-scannet";
        let expected = [
            "scannet-by-lifted".to_owned(),
            format!("{own}-20-scenes-hybrid-t18"),
            format!("{own}-20-scenes-hybrid-t1"),
            format!("{own}-20-scenes-hybrid-t36"),
            format!("{own}-20-scenes-macro-t18"),
            format!("{own}-10-scenes-hybrid-t18"),
            format!("{own}-50-scenes-hybrid-t18"),
        ];
        assert_eq!((ablation.len(), names.as_slice()), (2 + 3 + 2 + 3, expected.as_slice()));
        assert_eq!((published(&ablation, "T = 1"), published(&ablation, "10 scenes")), (Some(52.3), None));

        let transfer = of(Table::Transfer);
        assert_eq!(steps(&transfer)[2].to_string(), "scannet-by-student-matterport-20-scenes-hybrid-t18");
        assert_eq!(published(&transfer, "3D network, trained on Matterport3D"), None);
        let backbone = of(Table::Backbone);
        assert_eq!(published(&backbone, "LSeg and GeoPurify"), Some(51.2));
        assert_eq!(steps(&backbone)[3].to_string(), "scannet-by-student-scannet-20-scenes-hybrid-lseg-t18");
    }
}
