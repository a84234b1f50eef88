//! A health check for containers that have no shell and no curl.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Authority and path of an `http://` URL.
pub fn split(url: &str) -> io::Result<(String, String)> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url:?}: {why}"));
    let uri: hyper::Uri = url.parse().map_err(|_| invalid("not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(invalid("only http:// is known"));
    }
    let authority = uri.authority().ok_or_else(|| invalid("no host"))?.to_string();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((authority, path.to_owned()))
}

/// Asks `url` once; anything but 200 is an error.
pub fn health(url: &str) -> io::Result<()> {
    let (authority, path) = split(url)?;
    let addresses = authority.to_socket_addrs().or_else(|_| format!("{authority}:80").to_socket_addrs())?;
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match ask(&address, &authority, &path) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(address: &std::net::SocketAddr, authority: &str, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
    let mut start = [0; 13];
    stream.read_exact(&mut start)?;
    if &start == b"HTTP/1.1 200 " { Ok(()) } else { Err(io::Error::other("the answer is not 200")) }
}
