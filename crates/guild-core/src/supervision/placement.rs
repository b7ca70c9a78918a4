//! Decides on which thread an agent lives: where the least is done.
//!
//! Pure: whoever places passes in what was measured. What a thread does is the share of the last
//! second in which some agent was at work there. A thread that has no time left does more than that,
//! for attempts queue up; so there each of them counts. Whoever is placed is taken to do as much as
//! it has done before, or as much as agents do on average, so that many who are placed at once
//! spread. Where nothing has been measured yet, the number of agents decides.

/// What a thread has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThreadUse {
    /// Share of the time in which some agent is at work, 0 to 1.
    pub busy: f64,
    /// Attempts under way: those that run, wait for something, or wait for the thread.
    pub attempts: u32,
    /// Agents that live there.
    pub agents: u32,
}

/// The threads among which agents are placed.
#[derive(Clone, Debug)]
pub struct Placement {
    threads: Vec<ThreadUse>,
    /// What an agent does on average.
    share: f64,
}

impl Placement {
    /// Returns a placement among these threads.
    pub fn new(threads: Vec<ThreadUse>) -> Self {
        let agents: u32 = threads.iter().map(|thread| thread.agents).sum();
        let busy: f64 = threads.iter().map(|thread| thread.busy).sum();
        Self { threads, share: busy / f64::from(agents.max(1)) }
    }

    /// Places an agent, of which this share of a thread is known; returns the thread, or none where
    /// there is none.
    pub fn place(&mut self, share: Option<f64>) -> Option<usize> {
        let place = self.calmest()?;
        let share = share.unwrap_or(self.share);
        let thread = self.threads.get_mut(place)?;
        thread.busy += share;
        thread.agents += 1;
        Some(place)
    }

    /// Returns where an agent would live better by so much that it is worth a move, if anywhere.
    pub fn better(&self, at: usize, share: Option<f64>) -> Option<usize> {
        let here = self.pressure(self.threads.get(at)?);
        let place = self.calmest()?;
        let there = self.pressure(&self.threads[place]) + share.unwrap_or(self.share);
        (there + MARGIN <= here).then_some(place)
    }

    fn calmest(&self) -> Option<usize> {
        let key = |thread: &ThreadUse| ((self.pressure(thread) / STEP).round(), thread.agents);
        let places = self.threads.iter().enumerate();
        let calmest = places.min_by(|(_, a), (_, b)| {
            let ((a, of_a), (b, of_b)) = (key(a), key(b));
            a.total_cmp(&b).then(of_a.cmp(&of_b))
        });
        calmest.map(|(place, _)| place)
    }

    fn pressure(&self, thread: &ThreadUse) -> f64 {
        let queued = if thread.busy >= SATURATED { f64::from(thread.attempts) } else { 0.0 };
        thread.busy + queued * self.share
    }
}

/// Threads that differ by less are taken for equally busy: it is a sample.
const STEP: f64 = 0.05;
/// From here on a thread has no time left.
const SATURATED: f64 = 0.95;
/// What a move has to gain: the agent begins a life with nothing cached, and may be moved back.
const MARGIN: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(busy: f64, attempts: u32, agents: u32) -> ThreadUse {
        ThreadUse { busy, attempts, agents }
    }

    fn placed(threads: &[ThreadUse], count: u32, share: Option<f64>) -> Vec<u32> {
        let mut placement = Placement::new(threads.to_vec());
        let mut counts = vec![0; threads.len()];
        for _ in 0..count {
            counts[placement.place(share).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn where_nothing_is_measured_the_number_of_agents_decides() {
        let threads = [thread(0.0, 0, 5), thread(0.0, 0, 0), thread(0.01, 3, 1)];
        assert_eq!(placed(&threads, 9, None), [0, 5, 4]);
        assert_eq!(Placement::new(Vec::new()).place(None), None);
    }

    #[test]
    fn a_busy_thread_gets_nobody_before_the_calm_ones_do_as_much() {
        // One agent hogs the first thread, ten do little on the second.
        let threads = [thread(0.8, 1, 1), thread(0.1, 0, 10)];
        let counts = placed(&threads, 20, None);
        assert!(counts[1] > 12 && counts[0] > 0, "{counts:?}");
    }

    #[test]
    fn what_an_agent_has_done_before_goes_with_it() {
        let threads = [thread(0.0, 0, 0), thread(0.0, 0, 9)];
        assert_eq!(placed(&threads, 4, Some(0.5)), [2, 2], "two hogs on each");
        assert_eq!(placed(&threads, 4, Some(0.0)), [4, 0]);
    }

    #[test]
    fn of_two_threads_without_time_left_the_shorter_queue_is_better() {
        let threads = [thread(1.0, 90, 50), thread(1.0, 3, 50)];
        assert_eq!(placed(&threads, 3, Some(0.0)), [0, 3]);
    }

    #[test]
    fn an_agent_moves_only_when_that_gains_enough() {
        let placement = Placement::new(vec![thread(0.9, 1, 10), thread(0.5, 1, 10)]);
        assert_eq!(placement.better(0, Some(0.1)), Some(1));
        assert_eq!(placement.better(0, Some(0.2)), None, "the other one would be nearly as busy");
        assert_eq!(placement.better(1, None), None, "it is where the least is done");
    }
}
