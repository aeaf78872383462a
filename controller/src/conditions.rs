//! Conditions: each with the generation that it speaks of, and the moment at which its word changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use millrace_core::Error;

/// Sets a condition, without a truth if nobody knows; its time changes only with its status.
pub(crate) fn set(
    conditions: &mut Vec<Condition>,
    generation: i64,
    kind: &str,
    is_true: impl Into<Option<bool>>,
    reason: &str,
    message: &str,
) {
    let status = word(is_true.into());
    let observed_generation = Some(generation);
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(found) => {
            if found.status != status {
                found.last_transition_time = Time(Timestamp::now());
            }
            found.status = status.to_owned();
            found.reason = reason.to_owned();
            found.message = message.to_owned();
            found.observed_generation = observed_generation;
        }
        None => conditions.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation,
            last_transition_time: Time(Timestamp::now()),
        }),
    }
}

/// A truth as conditions spell it.
pub(crate) fn word(truth: Option<bool>) -> &'static str {
    match truth {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

/// A word that Kubernetes takes as a reason: letters and digits, beginning with a letter.
pub(crate) fn reason(word: &str) -> String {
    let mut reason = String::new();
    for part in word.split('_') {
        let mut letters = part.chars();
        reason.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        reason.extend(letters.map(|letter| letter.to_ascii_lowercase()));
    }
    reason
}

/// What is wrong and where, as the REST API says it.
pub(crate) fn sentence(error: &Error) -> String {
    error.field_name().map_or_else(|| error.chain(), |field| format!("{field}: {}", error.chain()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut conditions = Vec::new();
        set(&mut conditions, 1, "Accepted", true, "Valid", "");
        let since = conditions[0].last_transition_time.clone();
        set(&mut conditions, 2, "Accepted", true, "Valid", "again");
        assert_eq!((conditions.len(), &conditions[0].last_transition_time), (1, &since));
        assert_eq!(conditions[0].observed_generation, Some(2));
        set(&mut conditions, 2, "Accepted", None, "NobodyLooked", "");
        assert_eq!(conditions[0].status, "Unknown");
    }

    #[test]
    fn states_become_reasons() {
        assert_eq!(reason("EVENT_LIMIT_REACHED"), "EventLimitReached");
        assert_eq!(reason("FINISHED"), "Finished");
    }
}
