//! Choices that follow from the input alone.
//!
//! Owns: a small random number generator, and the ways to cut a stream into chunks.
//! Reads: the input.
//! Never: chooses differently for the same input.

use dark_factory_types::EventStream;

/// Random choices, seeded with the input (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    /// Seeds the choices with a hash of the input.
    pub(crate) fn of(data: &[u8]) -> Self {
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(data.iter().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// Cuts the data into a few random chunks, some of them empty.
    pub(crate) fn chunks<'d>(&mut self, data: &'d [u8]) -> Vec<&'d [u8]> {
        let mut cuts = vec![0, data.len()];
        for _ in 0..self.below(12) {
            cuts.push(self.below(data.len() + 1));
        }
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|pair| &data[pair[0]..pair[1]])
            .collect()
    }

    /// Returns the data in random chunks, twice, and, if it is not longer than `most`, byte by byte.
    pub(crate) fn chunkings<'d>(&mut self, data: &'d [u8], most: usize) -> Vec<Vec<&'d [u8]>> {
        let mut chunkings = vec![self.chunks(data), self.chunks(data)];
        if data.len() <= most {
            chunkings.push(data.chunks(1).collect());
        }
        chunkings
    }

    /// Cuts both streams and mixes their chunks.
    pub(crate) fn interleaved<'d>(
        &mut self,
        out: &'d [u8],
        error: &'d [u8],
    ) -> Vec<(EventStream, &'d [u8])> {
        let mut left = [self.chunks(out), self.chunks(error)];
        left.iter_mut().for_each(|chunks| chunks.reverse());
        let streams = [EventStream::Stdout, EventStream::Stderr];
        let mut mixed = Vec::new();
        while left.iter().any(|chunks| !chunks.is_empty()) {
            let which = self.below(2);
            mixed.extend(left[which].pop().map(|chunk| (streams[which], chunk)));
        }
        mixed
    }
}
