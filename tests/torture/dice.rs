//! Chance that can be had again: the same seed throws the same numbers (splitmix64).

/// One row of numbers.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The row of `seed` that is called `name`; rows of other names have nothing to do with it.
    pub fn new(seed: u64, name: &[u64]) -> Dice {
        name.iter().fold(Dice(seed), |mut dice, word| Dice(dice.next() ^ word.wrapping_mul(0x2545_f491_4f6c_dd1d)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A place in a list, which is not empty.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.next() % length as u64).expect("less than a usize")
    }
}

#[test]
fn the_same_seed_throws_the_same_and_another_name_something_else() {
    let row = |seed, name| {
        let mut dice = Dice::new(seed, name);
        [dice.below(1000), dice.below(1000), dice.below(1000)]
    };
    assert_eq!(row(7, &[1, 2]), row(7, &[1, 2]));
    assert_ne!(row(7, &[1, 2]), row(7, &[2, 1]));
    assert_ne!(row(7, &[1, 2]), row(8, &[1, 2]));
}
