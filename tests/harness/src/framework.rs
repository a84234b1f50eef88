//! A real framework's server behind the gate: gunicorn, which `tools/gunicorn` installs.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{sample, sys};

/// A running gunicorn. Dropping it ends it; it also ends with the thread that started it.
pub struct Framework {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Framework {
    /// Where `tools/gunicorn` installs it.
    fn python() -> PathBuf {
        sample::root().join(".gunicorn/bin/python")
    }

    /// Starts an application of `folder`; nothing where gunicorn is not installed.
    ///
    /// # Errors
    /// If it is installed and does not start.
    pub fn start(folder: &Path, application: &str) -> Result<Option<Self>, String> {
        if !Self::python().is_file() {
            return Ok(None);
        }
        let mut command = Command::new(Self::python());
        command
            .args(["-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4", "--chdir"])
            .arg(folder)
            .arg(application)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child =
            sys::die_with_us(&mut command).spawn().map_err(|error| format!("gunicorn: {error}"))?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let mut said = String::new();
        for line in lines.by_ref() {
            let line = line.map_err(|error| format!("gunicorn: {error}"))?;
            let address = line.split_once("Listening at: http://").map(|(_, rest)| rest);
            if let Some(address) = address.and_then(|rest| rest.split(' ').next()?.parse().ok()) {
                // What it says later must be read: a full pipe would stop it.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Some(Self { address, child }));
            }
            said += &line;
            said.push('\n');
        }
        let _ = child.wait();
        Err(format!("gunicorn ended at start-up:\n{said}"))
    }
}

impl Drop for Framework {
    fn drop(&mut self) {
        // One that has just ended cannot be killed, and is waited for all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
