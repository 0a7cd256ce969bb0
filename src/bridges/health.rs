//! What is wrong with a bridge although it is connected, and connections that another client has taken over.

use std::time::{Duration, Instant};

use crate::wire::ReasonCode;

/// Time in which sessions that are taken over are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// Connections in that time that another client has ended, beyond which there is a conflict.
const TAKEN_OVER_MAX: usize = 3;
/// Refused subscriptions that are named; of others, the number is.
const NAMED_MAX: usize = 3;

/// Subscriptions of one connection that are refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// What this broker has refused: the filters of subscriptions, and all in words.
    here: Vec<(Option<String>, String)>,
    /// Filters that the far broker has refused, with Reason Codes.
    there: Vec<(String, u8)>,
}

impl Refused {
    /// This broker has refused the subscription to a filter, or the session if there is none.
    pub fn note_here(&mut self, filter: Option<String>, what: String) {
        self.here.push((filter, what));
    }

    /// Only these filters are wanted here. Returns whether any other was refused.
    pub fn retain_here(&mut self, is_wanted: impl Fn(&str) -> bool) -> bool {
        let count = self.here.len();
        self.here.retain(|(filter, _)| filter.as_deref().is_none_or(&is_wanted));
        self.here.len() < count
    }

    /// The far broker refuses these filters now. Returns those that it did not refuse before for the same reason.
    pub fn set_there(&mut self, refused: Vec<(String, u8)>) -> Vec<(String, u8)> {
        let new = refused.iter().filter(|of| !self.there.contains(of)).cloned().collect();
        self.there = refused;
        new
    }

    /// Whether the far broker refuses a filter.
    pub fn is_any_there(&self) -> bool {
        !self.there.is_empty()
    }

    /// What is refused, in words; none if nothing is.
    pub fn why(&self) -> Option<String> {
        let here = self.here.iter().map(|(_, what)| format!("this broker has refused {what}"));
        let there = self.there.iter().map(|(filter, code)| {
            format!("the far broker has refused the subscription to {filter}: {code:#x}")
        });
        let count = self.here.len() + self.there.len();
        let mut named: Vec<_> = there.chain(here).take(NAMED_MAX).collect();
        if count > NAMED_MAX {
            named.push(format!("{} more", count - NAMED_MAX));
        }
        (count > 0).then(|| named.join("; "))
    }
}

/// Whether a far broker that refuses a connection with this code, of any version, refuses the name, the password or the
/// Client Identifier: trying again at once changes nothing.
pub(super) fn is_about_identity(code: u8) -> bool {
    // Return codes before 5.0: identifier rejected, bad user name or password, not authorized.
    let is_before_5 = matches!(code, 2 | 4 | 5);
    let reason = ReasonCode::from_u8(code);
    is_before_5
        || matches!(
            reason,
            Some(
                ReasonCode::ClientIdentifierNotValid
                    | ReasonCode::BadUserNameOrPassword
                    | ReasonCode::NotAuthorized
                    | ReasonCode::Banned
                    | ReasonCode::BadAuthenticationMethod
            )
        )
}

/// Connections that another client with the same Client Identifier has ended.
#[derive(Debug, Default)]
pub(super) struct Takeovers {
    /// When; the last ones.
    last: Vec<Instant>,
    is_conflict: bool,
}

impl Takeovers {
    /// A connection that has `lasted` so long has ended, `is_taken_over` by another client. Returns
    /// whether there is a conflict: more than three in a minute. It is over once a connection has lasted `calm_after`.
    pub fn note(
        &mut self,
        is_taken_over: bool,
        lasted: Option<Duration>,
        calm_after: Duration,
        now: Instant,
    ) -> bool {
        if lasted.is_some_and(|lasted| lasted >= calm_after) {
            self.is_conflict = false;
        }
        if !is_taken_over {
            return false;
        }
        self.last.retain(|&at| now.duration_since(at) < MINUTE);
        self.last.push(now);
        self.is_conflict |= self.last.len() > TAKEN_OVER_MAX;
        // Bounded: what is older than the last ones decides nothing.
        if self.last.len() > TAKEN_OVER_MAX {
            self.last.remove(0);
        }
        self.is_conflict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_that_were_not_refused_before_are_new() {
        let mut refused = Refused::default();
        assert_eq!(refused.why(), None);
        let of = |filters: &[&str]| -> Vec<(String, u8)> {
            filters.iter().map(|filter| ((*filter).to_owned(), 0x87)).collect()
        };
        assert_eq!(refused.set_there(of(&["a", "b"])), of(&["a", "b"]));
        assert_eq!(refused.set_there(of(&["b", "c"])), of(&["c"]));
        let why = refused.why().expect("two are refused");
        assert_eq!(
            why,
            "the far broker has refused the subscription to b: 0x87; the far broker has refused the subscription to c: 0x87"
        );
        for filter in ["d", "e"] {
            let what = format!("the subscription to {filter}: Not authorized");
            refused.note_here(Some(filter.to_owned()), what);
        }
        assert!(refused.why().expect("four").ends_with("to d: Not authorized; 1 more"));
        assert_eq!(refused.set_there(Vec::new()), []);
        assert!(!refused.is_any_there() && refused.why().is_some());
        assert!(refused.retain_here(|filter| filter == "d") && refused.why().is_some());
        assert!(!refused.retain_here(|filter| filter == "d"));
        assert!(refused.retain_here(|_| false));
        assert_eq!(refused.why(), None);
    }

    #[test]
    fn what_is_refused_because_of_who_connects_is_told_from_what_passes() {
        for code in [2, 4, 5, 0x85, 0x86, 0x87, 0x8A, 0x8C] {
            assert!(is_about_identity(code), "{code:#x}");
        }
        for code in [1, 3, 0x80, 0x84, 0x88, 0x89, 0x97, 0x9F] {
            assert!(!is_about_identity(code), "{code:#x}");
        }
    }

    #[test]
    fn the_fourth_connection_in_a_minute_that_is_taken_over_is_a_conflict_until_one_lasts() {
        let calm_after = Duration::from_secs(120);
        let (begin, mut of) = (Instant::now(), Takeovers::default());
        let mut at = |seconds, is_taken_over, lasted: u64| {
            let (lasted, now) =
                (Some(Duration::from_secs(lasted)), begin + Duration::from_secs(seconds));
            of.note(is_taken_over, lasted, calm_after, now)
        };
        assert!(![0, 30, 59].into_iter().any(|second| at(second, true, 0)));
        assert!(!at(61, true, 0), "the first one was a minute ago");
        assert!(at(62, true, 0));
        assert!(!at(63, false, 0), "another end");
        assert!(at(200, true, 60), "it goes on while none lasts");
        assert!(!at(400, true, 120));
    }
}
