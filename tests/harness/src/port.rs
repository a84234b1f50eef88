//! Ports for Envoy's listeners.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 that nobody else gets while this lives, but on which an Envoy of the same
/// user can listen.
///
/// Envoy's listeners share their port among its workers, and the kernel would give two such
/// listeners, if both ask for any free port, the same one. So the port is bound here first without
/// sharing, and sharing is enabled afterwards; nothing listens on this socket.
pub struct Reserved {
    /// The address.
    pub address: SocketAddr,
    _socket: Socket,
}

impl Reserved {
    /// Reserves a port: any free one for 0.
    pub fn new(port: u16) -> io::Result<Self> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if port != 0 {
            // A port whose owner shares it can be bound, but not by a socket that does not share.
            drop(TcpListener::bind(wanted)?);
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // An earlier run's closed connections do not matter.
        socket.set_reuse_address(port != 0)?;
        socket.bind(&wanted.into())?;
        socket.set_reuse_port(true)?;
        let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
        Ok(Self { address, _socket: socket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn shared(address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(8)?;
        Ok(socket)
    }

    #[test]
    fn a_reserved_port_is_for_those_who_share() {
        let reserved = Reserved::new(0).unwrap();
        assert_eq!(TcpListener::bind(reserved.address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let one = shared(reserved.address).unwrap();
        let _two = shared(reserved.address).unwrap();
        drop(one);
        assert_eq!(Reserved::new(reserved.address.port()).err().unwrap().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn no_port_is_reserved_twice() {
        let ports: Vec<Reserved> = (0..200).map(|_| Reserved::new(0).unwrap()).collect();
        let listening: Vec<Socket> = ports.iter().map(|port| shared(port.address).unwrap()).collect();
        let distinct: BTreeSet<_> = ports.iter().map(|port| port.address).collect();
        assert_eq!((distinct.len(), listening.len()), (200, 200));
    }
}
