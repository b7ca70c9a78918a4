//! I7: at every event, what is used of each quota stays within its limit.
//!
//! Two accounts are kept: what `quota_changed` says, and what the tasks that hold a lease asked for
//! when they were added. Permits that are cut while they are held stay held, and no more are given.
//! A rate is a token bucket; it is checked in virtual time only, as real time tells when a lease
//! was recorded and not when its tokens were taken. A restart of the process begins with no permit
//! held; tokens that were spent stay spent.

use std::collections::BTreeMap;

use guild_core::event::{LineEvent, QuotaTerms};

use super::board::{Board, Quota, Task};
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I7;

/// Judges quotas.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    accounts: BTreeMap<String, Account>,
    has_untold_rates: bool,
}

/// What tasks took of a quota.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    held: u64,
    /// Tokens that a bucket lacks, times its period.
    spent: u128,
    spent_at_us: u64,
}

impl Check for Quotas {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        match seen.event {
            LineEvent::GuildStarted { quotas, .. } => {
                // Nobody holds a permit any more; tokens stay spent, unless the rate is another.
                self.accounts.retain(|name, account| {
                    account.held = 0;
                    let before = board.quotas.get(name).and_then(|quota| quota.terms);
                    quotas.iter().any(|(of, terms)| of == name && Some(*terms) == before)
                });
            }
            LineEvent::QuotaChanged { quota, in_use, limit } => {
                let known = board.quotas.get(&**quota).copied();
                change(quota, *in_use, *limit, known, findings);
            }
            LineEvent::TaskAssigned { .. } => {
                if let Some(task) = seen.task().filter(|task| !task.terms.quotas.is_empty()) {
                    self.give_back(task);
                    self.take(seen, task, board, findings);
                }
            }
            LineEvent::TaskReady { .. }
            | LineEvent::TaskReturned { .. }
            | LineEvent::TaskCompleted { .. }
            | LineEvent::TaskFailed { .. }
            | LineEvent::TaskEnded { .. } => {
                if let Some(task) = seen.task() {
                    self.give_back(task);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, _: &End<'_>, _: &Board, findings: &mut Findings) {
        if self.has_untold_rates {
            findings.cannot_judge(I7, "the rates are not checked: the log tells real time");
        }
        findings.cannot_judge_unchecked(I7, "no quota was used");
    }
}

impl Quotas {
    fn take(&mut self, seen: &Seen<'_>, task: &Task, board: &Board, findings: &mut Findings) {
        for (name, amount) in &task.terms.quotas {
            let quota = board.quotas.get(name).copied().unwrap_or_default();
            let account = self.accounts.entry(name.clone()).or_default();
            match quota.terms {
                Some(QuotaTerms::Rate { amount: refill, per_us, burst }) => {
                    if board.is_virtual() {
                        findings.check(I7);
                        if !account.spend(seen.at_us, u64::from(*amount), (refill, per_us, burst)) {
                            findings.violate(I7, || {
                                format!("{} takes {amount} of quota `{name}`, faster than {refill} in {per_us} us with a burst of {burst}", seen.task_name())
                            });
                        }
                    } else {
                        self.has_untold_rates = true;
                    }
                }
                Some(QuotaTerms::Permits { .. }) | None => {
                    account.held += u64::from(*amount);
                    let (held, limit) = (account.held, u64::from(quota.limit));
                    findings.expect(I7, held <= limit, || {
                        format!(
                            "{}: with it {held} permits of quota `{name}` are held, of {limit}",
                            seen.task_name()
                        )
                    });
                    if held > u64::from(quota.in_use) {
                        let told = quota.in_use;
                        findings.violate(I7, || {
                            format!("{}: {told} permits of quota `{name}` are said to be in use, and {held} are", seen.task_name())
                        });
                    }
                }
            }
        }
    }

    fn give_back(&mut self, task: &Task) {
        if task.lease.is_none_or(|lease| lease.is_orphaned) {
            return;
        }
        for (name, amount) in &task.terms.quotas {
            if let Some(account) = self.accounts.get_mut(name) {
                account.held = account.held.saturating_sub(u64::from(*amount));
            }
        }
    }
}

impl Account {
    /// Spends tokens of a bucket; tells whether there were as many.
    fn spend(&mut self, at_us: u64, tokens: u64, (refill, per_us, burst): (u32, u64, u32)) -> bool {
        let refilled = u128::from(at_us.saturating_sub(self.spent_at_us)) * u128::from(refill);
        self.spent = self.spent.saturating_sub(refilled) + u128::from(tokens) * u128::from(per_us);
        self.spent_at_us = at_us;
        self.spent <= u128::from(burst) * u128::from(per_us)
    }
}

fn change(name: &str, in_use: u32, limit: u32, known: Option<Quota>, findings: &mut Findings) {
    findings.check(I7);
    let Some(before) = known else {
        return findings.violate(I7, || format!("quota `{name}` changes and was never declared"));
    };
    // Permits that are held when their number is cut stay held.
    if in_use > limit && in_use > before.in_use {
        findings.violate(I7, || format!("{in_use} of quota `{name}` are in use, of {limit}"));
    }
    if limit != before.limit && in_use != before.in_use {
        let old = before.limit;
        findings.violate(I7, || {
            format!("the limit of quota `{name}` changes from {old} to {limit} by itself")
        });
    }
}
