//! Runs programs of an image as Kubernetes would: its user, a read-only root, no capabilities, no way to more rights, no network.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::shell::Step;

pub(super) struct Image<'a> {
    pub(super) root: PathBuf,
    pub(super) config: &'a Value,
    /// Where runc's bundle is written.
    pub(super) folder: PathBuf,
}

impl Image<'_> {
    /// What the program printed; fails unless it succeeds.
    pub(super) fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        std::fs::create_dir_all(&self.folder)?;
        std::fs::write(self.folder.join("config.json"), self.spec(args).to_string())?;
        let (state, bundle) = (self.folder.join("state"), self.folder.to_string_lossy());
        let name = format!("millrace-image-{}", std::process::id());
        Step::program(Path::new("runc")).args(&["--root", &state.to_string_lossy(), "run", "--bundle", &bundle, &name]).output()
    }

    fn spec(&self, args: &[&str]) -> Value {
        let user = self.config["User"].as_str().unwrap_or("0:0");
        let ids: Vec<u32> = user.split(':').filter_map(|id| id.parse().ok()).collect();
        let namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts", "network"].iter().map(|name| json!({"type": name})).collect();
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": self.root, "readonly": true},
            "hostname": "image",
            "process": {
                "user": {"uid": ids.first(), "gid": ids.get(1)},
                "args": args,
                "env": self.config["Env"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
            },
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
            ],
            "linux": {"namespaces": namespaces},
        })
    }
}
