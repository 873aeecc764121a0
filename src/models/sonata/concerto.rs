//! Concerto (Zhang et al., NeurIPS 2025): Sonata's network in four sizes, trained with pictures too.

/// Channels of an attention head, in every size.
const HEAD_CHANNELS: usize = 16;

/// Size of a published encoder of Concerto. `Base` has the shape of Sonata's published encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcertoSize {
    /// 4.9 million parameters.
    Tiny,
    /// 39 million parameters.
    Small,
    /// 108 million parameters.
    Base,
    /// 208 million parameters.
    Large,
}

impl ConcertoSize {
    /// All sizes, the smallest first.
    pub const ALL: [Self; 4] = [Self::Tiny, Self::Small, Self::Base, Self::Large];

    /// Channels per stage.
    #[must_use]
    pub fn channels(self) -> [usize; 5] {
        match self {
            Self::Tiny => [16, 32, 64, 128, 256],
            Self::Small => [32, 64, 128, 256, 512],
            Self::Base => [48, 96, 192, 384, 512],
            Self::Large => [64, 128, 256, 512, 768],
        }
    }

    /// Blocks per stage.
    #[must_use]
    pub fn depths(self) -> [usize; 5] {
        match self {
            Self::Tiny => [1, 1, 1, 3, 1],
            Self::Small => [2, 2, 2, 6, 2],
            Self::Base | Self::Large => [3, 3, 3, 12, 3],
        }
    }

    /// Attention heads per stage.
    #[must_use]
    pub fn heads(self) -> [usize; 5] {
        self.channels().map(|channels| channels / HEAD_CHANNELS)
    }

    /// Finds the size by the channels of the stages, which the shapes of a checkpoint show. Returns `None` for other
    /// channels and other files.
    #[must_use]
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let width = |stage: usize| shape(&format!("enc.enc{stage}.block0.attn.proj.weight"))?.last().copied();
        let channels = [width(0)?, width(1)?, width(2)?, width(3)?, width(4)?];
        Self::ALL.into_iter().find(|size| size.channels() == channels && width(channels.len()).is_none())
    }
}
