//! A quota as the log tells of it.

use guild_core::event::QuotaTerms;

/// A quota.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::checker) struct Quota {
    /// What the guild was started with; none for a quota that only events name.
    pub(in crate::checker) terms: Option<QuotaTerms>,
    /// What the log says is in use.
    pub(in crate::checker) in_use: u32,
    /// What the log says may be in use.
    pub(in crate::checker) limit: u32,
}

impl Quota {
    pub(super) fn of(terms: QuotaTerms) -> Self {
        let limit = match terms {
            QuotaTerms::Permits { permits } => permits,
            QuotaTerms::Rate { burst, .. } => burst,
        };
        Self { terms: Some(terms), in_use: 0, limit }
    }

    /// Returns whether it gives tokens of a rate, and not permits that come back.
    pub(in crate::checker) fn is_rate(&self) -> bool {
        matches!(self.terms, Some(QuotaTerms::Rate { .. }))
    }
}
