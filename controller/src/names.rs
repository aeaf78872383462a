//! Names of what the controller makes.

/// The longest name of a Job whose pods carry it as a label.
const MAX: usize = 63;

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
}
