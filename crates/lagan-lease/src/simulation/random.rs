//! Chance from a seed (SplitMix64), and clocks that differ.

/// The source of all chance of a run.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A number from `start` to below `end`.
    pub fn range(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end - start)
    }

    /// True `percent` times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A machine's clock: it started at another time and runs at another rate than real time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    offset_ms: u64,
    /// Thousandths of real time.
    rate: u64,
}

impl Clock {
    pub fn any(random: &mut Random) -> Self {
        Clock {
            offset_ms: random.below(1_000_000),
            rate: random.range(950, 1_050),
        }
    }

    /// What it shows at that real time.
    pub fn ms(&self, real_us: u64) -> u64 {
        self.offset_ms + real_us * self.rate / 1_000_000
    }

    /// The first real time at which it shows that.
    pub fn real_us(&self, ms: u64) -> u64 {
        (ms.saturating_sub(self.offset_ms) * 1_000_000).div_ceil(self.rate)
    }
}
