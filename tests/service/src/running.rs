//! A service on a thread of its own, and the loop that takes connections.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// A server on its own thread, for tests that are not asynchronous. Dropping it stops it and closes
/// all connections.
pub struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts on free ports of 127.0.0.1, and says which they are.
    ///
    /// # Panics
    /// If the machine gives neither ports nor a thread.
    pub fn start<const PORTS: usize, Server>(
        serve: impl FnOnce([TcpListener; PORTS]) -> Server,
    ) -> ([SocketAddr; PORTS], Self)
    where
        Server: Future + Send + 'static,
    {
        Self::start_on([0; PORTS], serve)
    }

    /// The same on these ports; 0 is any free one.
    ///
    /// # Panics
    /// If a port is taken, or the machine gives neither ports nor threads.
    pub fn start_on<const PORTS: usize, Server>(
        ports: [u16; PORTS],
        serve: impl FnOnce([TcpListener; PORTS]) -> Server,
    ) -> ([SocketAddr; PORTS], Self)
    where
        Server: Future + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listeners =
            ports.map(|port| runtime.block_on(TcpListener::bind(("127.0.0.1", port))).expect("a free port"));
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("an address"));
        let server = serve(listeners);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = server => {}
                    _ = stopped => {}
                }
            });
        });
        (addresses, Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the thread has ended, which is what we want.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed already.
            let _ = thread.join();
        }
    }
}

/// Takes connections until the future is dropped, which also closes them all.
pub async fn accept<Served>(listener: TcpListener, serve: impl Fn(TcpStream) -> Served)
where
    Served: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream));
                }
                Err(_) => pause().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// After a failed `accept`: the client left early, or there are no file descriptors. Both pass, and
/// without a pause the second would spin.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
