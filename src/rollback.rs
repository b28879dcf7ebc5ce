//! The undo stack of a verb that creates something: plan, act with undo pushed, commit with a step that cannot fail.

use crate::error::Result;

type Step<'a> = (&'static str, Box<dyn FnOnce() -> Result<()> + 'a>);

/// Undo steps, run in reverse order on drop unless [`Rollback::commit`] was called.
///
/// A local effect pushes its undo after it happened; a remote one *before* its call, because a lost reply is not a
/// refusal. Undo steps must therefore be idempotent. A step that fails is logged with its name; the rest still run.
#[must_use = "dropping it at once undoes nothing that follows"]
#[derive(Default)]
pub struct Rollback<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> Rollback<'a> {
    /// An empty stack.
    pub fn new() -> Self {
        Rollback { steps: Vec::new() }
    }

    /// Adds an undo step; `name` is what it undoes, for the log.
    pub fn push(&mut self, name: &'static str, undo: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push((name, Box::new(undo)));
    }

    /// Everything worked: forget the undo steps.
    pub fn commit(mut self) {
        self.steps.clear();
    }
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        for (name, undo) in self.steps.drain(..).rev() {
            if let Err(e) = undo() {
                log::warn!("undo {name}: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::cell::RefCell;

    #[test]
    fn runs_in_reverse_and_past_a_failing_step() {
        let seen = RefCell::new(Vec::new());
        {
            let mut undo = Rollback::new();
            undo.push("first", || {
                seen.borrow_mut().push(1);
                Ok(())
            });
            undo.push("second", || Err(Error::internal("no")));
            undo.push("third", || {
                seen.borrow_mut().push(3);
                Ok(())
            });
        }
        assert_eq!(*seen.borrow(), [3, 1]);
    }

    #[test]
    fn commit_forgets() {
        let seen = RefCell::new(0);
        let mut undo = Rollback::new();
        undo.push("only", || {
            *seen.borrow_mut() += 1;
            Ok(())
        });
        undo.commit();
        assert_eq!(*seen.borrow(), 0);
    }
}
