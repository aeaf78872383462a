//! A NATS server with JetStream of one's own.

use std::sync::Mutex;

use super::{Launch, Server, USER, free_port, fresh_dir, program, spawn, wait_until_listening};

/// Who runs it, when we are root: the program may lie where only root reads.
const OS_USER: &str = "root";

/// Starts a server with JetStream: `MILLRACE_NATS_PROGRAM`, else `nats-server` in the path.
pub fn start() -> anyhow::Result<Server> {
    let server = match std::env::var_os("MILLRACE_NATS_PROGRAM") {
        Some(path) => path.into(),
        None => program("NATS (run this by `./x it`, or name a program in MILLRACE_NATS_PROGRAM)", &["nats-server"], &[])?,
    };
    let dir = fresh_dir("nats", None)?;
    let (port, log) = (free_port(), dir.join("server.log"));
    let args: Vec<String> =
        ["-js", "-sd", &dir.join("js").display().to_string(), "-a", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec();
    let mut child = spawn(&server, args.clone(), OS_USER, &log)?;
    wait_until_listening(&mut child, port, &log)?;
    Ok(Server {
        host: "127.0.0.1".into(),
        port,
        user: USER.into(),
        password: String::new(),
        child: Some(Mutex::new(child)),
        dir: Some(dir),
        launch: Some(Launch { program: server, args, os_user: OS_USER, log }),
    })
}

impl Server {
    /// Kills a NATS server and starts it again without anything that it had kept.
    pub fn begin_anew(&self) -> anyhow::Result<()> {
        self.kill();
        self.forget_streams();
        self.start_again()
    }

    /// Removes what a killed NATS server has kept, as a pod's own disk goes with the pod.
    pub fn forget_streams(&self) {
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir.join("js"));
        }
    }
}
