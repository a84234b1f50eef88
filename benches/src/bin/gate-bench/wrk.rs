//! wrk, with a script that reports in numbers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::variants::{Load, PATH, Size, delivery, numbered_parts, token};

/// More than can be in flight at once, so that no two requests in flight have the same token.
const RING: u32 = 1024;

/// The scripts.
pub(crate) struct Wrk {
    one: PathBuf,
    many: PathBuf,
    deliveries: Vec<(Size, PathBuf)>,
}

/// What wrk saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// Answers.
    pub requests: u64,
    /// Microseconds that it took.
    pub duration: u64,
    /// The median latency in microseconds.
    pub p50: u64,
    /// Connections that failed, broken reads and writes, refused requests, timeouts.
    pub errors: u64,
}

const DONE: &str = r#"
done = function(summary, latency)
    local e = summary.errors
    print("bench", summary.requests, summary.duration, latency:percentile(50),
        e.connect + e.read + e.write + e.status + e.timeout)
end
"#;

impl Wrk {
    /// Writes the scripts into a directory.
    pub(crate) fn new(directory: &Path) -> Result<Self, String> {
        let (stem, digits) = numbered_parts();
        // Requests are made beforehand; sending one is a look into a table.
        let many = format!(
            "local requests, n = {{}}, 0\n\
             init = function()\n    \
                 for i = 1, {RING} do\n        \
                     local token = string.format(\"Bearer %s%0{digits}d\", \"{stem}\", i)\n        \
                     requests[i] = wrk.format(nil, nil, {{Authorization = token}})\n    \
                 end\n\
             end\n\
             request = function()\n    n = n % {RING} + 1\n    return requests[n]\nend\n{DONE}"
        );
        let one = format!("wrk.headers[\"Authorization\"] = \"Bearer {}\"\n{DONE}", token());
        let deliveries =
            Size::ALL.map(|size| (size, directory.join(format!("delivery-{}.lua", size.bytes())))).to_vec();
        for (size, path) in &deliveries {
            let (body, signature) = delivery(*size);
            let text = format!(
                "wrk.method, wrk.body = \"POST\", [[{body}]]\n\
                 wrk.headers[\"X-Avnology-Signature\"] = \"{signature}\"\n{DONE}"
            );
            fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let wrk = Self { one: directory.join("one.lua"), many: directory.join("many.lua"), deliveries };
        for (path, text) in [(&wrk.one, one), (&wrk.many, many)] {
            fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(wrk)
    }

    /// Sends requests over some connections for some seconds.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        load: Load,
        connections: u32,
        seconds: u32,
    ) -> Result<Report, String> {
        let delivery = |of: Size| self.deliveries.iter().find(|(size, _)| *size == of).map(|(_, path)| path);
        let script = match load {
            Load::One => Some(&self.one),
            Load::Many => Some(&self.many),
            Load::Delivery(size) => delivery(size),
        };
        let output = Command::new("wrk")
            .args(["--threads", "1", "--timeout", "5s"])
            .args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")])
            .arg("-s")
            .arg(script.ok_or("no script for this size")?)
            .arg(format!("http://{address}{PATH}"))
            .output()
            .map_err(|error| format!("wrk: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Lua has one type of number, and prints whole ones without a point.
        let numbers: Vec<u64> = text
            .lines()
            .find_map(|line| line.strip_prefix("bench"))
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            .unwrap_or_default();
        match numbers[..] {
            [requests, duration, p50, errors] if output.status.success() => {
                Ok(Report { requests, duration, p50, errors })
            }
            _ => Err(format!("wrk: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))),
        }
    }
}
