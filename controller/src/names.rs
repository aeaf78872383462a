//! Names of what the controller makes.

use millrace_core::{Error, Result};

/// The longest name of a Job whose pods carry it as a label.
const MAX: usize = 63;

/// The longest name of a Stream: its Jobs add `-<attempt>`, and the hosts of their pods `-<index>`, for each of which there is room for three digits.
pub(crate) const MAX_STREAM: usize = MAX - 8;
/// The longest name of a StreamConfig: its Streams add `-<run number>`, for which there is room for six digits.
pub(crate) const MAX_CONFIG: usize = MAX_STREAM - 7;

/// Fails for a name that leaves no room for those of what is made for its object.
pub(crate) fn check(name: &str, longest: usize) -> Result<()> {
    if name.len() <= longest {
        return Ok(());
    }
    let text = format!("its Jobs and pods are named after it, so it may have {longest} characters, and has {}", name.len());
    Err(Error::invalid("metadata.name", text))
}

/// `base-suffix`, as far as Kubernetes takes it: a longer base is cut and told apart by a digest of the whole.
pub(crate) fn joined(base: &str, suffix: &str) -> String {
    let room = MAX.saturating_sub(suffix.len() + 1);
    format!("{}-{suffix}", short(base, room))
}

/// A name as the value of a label.
pub(crate) fn label(name: &str) -> String {
    short(name, MAX)
}

fn short(name: &str, room: usize) -> String {
    if name.len() <= room {
        return name.to_owned();
    }
    let digest = format!("{:08x}", fnv1a(name));
    // Names of resources are ASCII.
    let head: String = name.chars().take(room.saturating_sub(digest.len() + 1)).collect();
    format!("{}-{digest}", head.trim_end_matches(['-', '.']))
}

/// FNV-1a, 32 bits: the same for every version of this program.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        assert_eq!(joined("shop", "probe-1"), "shop-probe-1");
        let (one, other) = (joined(&format!("{}a", "x".repeat(80)), "probe-1"), joined(&format!("{}b", "x".repeat(80)), "probe-1"));
        assert_ne!(one, other);
        assert!(one.len() <= MAX && one.ends_with("-probe-1"), "{one}");
        assert_eq!(label("shop"), "shop");
        assert_eq!(label(&"x".repeat(200)).len(), MAX);
    }

    #[test]
    fn names_leave_room_for_those_of_runs_attempts_and_indexes() {
        let config = "x".repeat(MAX_CONFIG);
        assert!(check(&config, MAX_CONFIG).is_ok());
        let error = check(&format!("{config}x"), MAX_CONFIG).unwrap_err();
        assert_eq!(error.field_name(), Some("metadata.name"));
        let stream = format!("{config}-999999");
        assert!(check(&stream, MAX_STREAM).is_ok());
        assert_eq!(format!("{stream}-999-999").len(), MAX);
    }
}
