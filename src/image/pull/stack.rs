//! The snapshots of an image, one on the other, each as soon as its layers are here.

use std::ops::Range;

use super::job::Job;
use super::{Puller, Step};
use crate::call::Call;
use crate::error::{Context, Kind, Result};
use crate::image::resolve::Layer;
use crate::image::unpack::extract;
use crate::store::pulls::Turn;

/// Where a pull unpacks.
pub(super) struct Stack<'a> {
    puller: &'a Puller<'a>,
    call: &'a Call,
    layers: &'a [Layer],
    job: &'a Job,
    /// We have made the topmost. Who has just made a snapshot finds none on it. If somebody else was very fast, what he has
    /// made is taken.
    made: bool,
}

impl<'a> Stack<'a> {
    pub(super) fn new(puller: &'a Puller<'a>, call: &'a Call, layers: &'a [Layer], job: &'a Job) -> Self {
        Stack { puller, call, layers, job, made: false }
    }

    /// Unpacks all layers on the `there` lowest, which are there. Blocks until all are here.
    ///
    /// # Errors
    /// `InvalidArgument` if a layer unpacks to something else than its diff id; what containerd says.
    pub(super) fn build(mut self, there: usize) -> Result<()> {
        self.pass(0..there)?;
        let mut next = there;
        while next < self.layers.len() {
            let run = self.job.runs().from(next);
            next = run.end;
            let rest = match run.len() > 1 {
                true => {
                    let (first, last) = (self.digest(run.start), self.digest(run.end - 1));
                    self.together(run).with_context(|| format!("layers {first} to {last}"))?
                }
                false => run,
            };
            for n in rest {
                self.alone(n).with_context(|| format!("layer {}", self.digest(n)))?;
            }
        }
        Ok(())
    }

    /// One snapshot for one layer.
    fn alone(&mut self, n: usize) -> Result<()> {
        self.job.await_layer(n)?;
        let Some(layer) = self.layers.get(n) else { return Ok(()) };
        let _turn = self.turn(n)?;
        match (self.made, self.job.take_staged(n)) {
            (true, staged) => {
                extract(&self.puller.images(), self.call, layer, self.name_below(n), self.name(n), staged)?;
            }
            (false, Some(staged)) => staged.give_up(self.call),
            (false, None) => {}
        }
        self.report(n);
        Ok(())
    }

    /// One snapshot for several layers. Says which are left: that they need one each is no failure.
    fn together(&mut self, run: Range<usize>) -> Result<Range<usize>> {
        let (end, last) = (run.end, run.end.saturating_sub(1));
        self.job.await_layer(run.start)?;
        let _turn = self.turn(last)?;
        if !self.made {
            self.pass(run)?;
            return Ok(end..end);
        }
        let start = self.start(run.start..last)?;
        self.pass(run.start..start)?;
        let bytes = |n: usize| {
            self.job.await_layer(start + n)?;
            self.job.take_bytes(start + n)
        };
        let Some(layers) = self.layers.get(start..end).filter(|layers| layers.len() > 1) else { return Ok(start..end) };
        let (at, names) = (self.puller.images(), (self.name_below(start), self.name(last)));
        match self.job.runs().extract(&at, self.call, layers, names, &bytes) {
            Ok(()) => {
                log::debug!("layers {} to {}: unpacked together", self.digest(start), self.digest(last));
                // If somebody else has made it meanwhile, they may not all be here.
                self.pass(start..end)?;
                Ok(end..end)
            }
            Err(e) => {
                self.call.check()?;
                // Of one that could not be fetched the pull fails, for that reason.
                if e.kind() != Kind::Canceled {
                    let (first, last) = (self.digest(start), self.digest(last));
                    log::info!("layers {first} to {last}: containerd unpacks them one by one: {e}");
                }
                Ok(start..end)
            }
        }
    }

    /// Where to begin a run: what is cut otherwise, because an image ends there, may have the lower layers of it. Of a layer
    /// that containerd has not, nobody is asked; if it is unpacked all the same, it is soon unpacked again.
    fn start(&self, run: Range<usize>) -> Result<usize> {
        for n in run.clone().rev() {
            if self.job.known().may_have(self.digest(n)) && self.is_there(n)? {
                return Ok(n + 1);
            }
        }
        Ok(run.start)
    }

    /// Waits for layers with which nothing is to be done.
    fn pass(&self, mut layers: Range<usize>) -> Result<()> {
        layers.try_for_each(|n| {
            self.job.await_layer(n)?;
            self.job.let_go(n);
            self.report(n);
            Ok(())
        })
    }

    /// The right to make the snapshot of a layer, and whether it is to be made.
    fn turn(&mut self, n: usize) -> Result<Turn> {
        let turn = self.puller.pulls.chains.take(self.call, self.name(n))?;
        self.made = self.made && !turn.waited || !self.is_there(n)?;
        Ok(turn)
    }

    fn is_there(&self, n: usize) -> Result<bool> {
        self.puller.has(self.call, self.job.known().chain.get(n))
    }

    /// The name of the snapshot that has this layer and those below.
    fn name(&self, n: usize) -> &'a str {
        self.job.known().chain.get(n).map_or("", String::as_str)
    }

    fn name_below(&self, n: usize) -> &'a str {
        n.checked_sub(1).map_or("", |below| self.name(below))
    }

    fn digest(&self, n: usize) -> &'a str {
        self.layers.get(n).map_or("", |layer| &layer.descriptor.digest)
    }

    fn report(&self, layer: usize) {
        (self.puller.report)(Step::Unpacked { layer });
    }
}
