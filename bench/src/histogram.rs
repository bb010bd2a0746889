//! A histogram of nanoseconds with a relative error below one percent, as HDR histograms have.
//!
//! Values below 128 are exact; above, each power of two is cut into 128 equal parts. Recording is
//! a shift, an index and an add, cheap enough for each delivery of a saturated run.

const PART_BITS: u32 = 7;
const PARTS: usize = 1 << PART_BITS;
const SLOTS: usize = PARTS * (64 - PART_BITS as usize + 1);

#[derive(Clone)]
pub struct Histogram {
    slots: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            slots: vec![0; SLOTS],
            count: 0,
            max: 0,
        }
    }
}

fn slot(value: u64) -> usize {
    if value < PARTS as u64 {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - PART_BITS;
    (shift as usize + 1) * PARTS + ((value >> shift) as usize & (PARTS - 1))
}

/// The greatest value that falls into `slot`, so that a percentile is never flattered.
fn slot_end(slot: usize) -> u64 {
    if slot < PARTS {
        return slot as u64;
    }
    let shift = (slot / PARTS - 1) as u32;
    let start = ((PARTS + slot % PARTS) as u64) << shift;
    start + ((1u64 << shift) - 1)
}

impl Histogram {
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.slots[slot(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.slots.iter_mut().zip(&other.slots) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that `share` (0 to 1) of all recorded ones do not exceed.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (slot, count) in self.slots.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return slot_end(slot).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_holds_what_is_put_into_it() {
        for value in (0..2000).chain((0..57).map(|bit| (1u64 << bit) + 12_345)) {
            let end = slot_end(slot(value));
            assert!(end >= value, "{value} -> {end}");
            assert!(end as f64 <= value as f64 * 1.008 + 1.0, "{value} -> {end}");
        }
        assert!(slot(u64::MAX) < SLOTS);
    }

    #[test]
    fn quantiles_of_known_values() {
        let mut histogram = Histogram::default();
        for value in 1..=100_000 {
            histogram.record(value);
        }
        for (share, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let got = histogram.quantile(share) as f64;
            assert!((got / exact - 1.0).abs() < 0.01, "{share}: {got}");
        }
        assert_eq!(histogram.quantile(1.0), 100_000);
        assert_eq!(histogram.max(), 100_000);
    }
}
