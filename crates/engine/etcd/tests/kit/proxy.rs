//! A way to an etcd that a test can close, or on which answers get lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub const OPEN: u8 = 0;
/// Nothing goes through, and nobody is told.
pub const SHUT: u8 = 1;
/// Requests go through; at the first bytes of an answer the connection ends instead.
pub const NO_ANSWERS: u8 = 2;
/// As before, once; then open again.
pub const ONE_LOST: u8 = 3;

/// Requests go through; answers wait.
pub const HELD: u8 = 4;

/// Requests go through; instead of one answer comes that etcd is full. Then open again.
pub const CALLED_FULL: u8 = 5;

const FULL: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 55\r\n\r\n\
    {\"message\":\"etcdserver: mvcc: database space exceeded\"}";

/// The way.
pub struct Proxy {
    pub url: String,
    mode: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let there: SocketAddr = url.split_once("://").unwrap().1.parse().unwrap();
        let mode = Arc::new(AtomicU8::new(OPEN));
        let switch = Arc::clone(&mode);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, there, Arc::clone(&switch)));
            }
        });
        Self {
            url: format!("http://{here}"),
            mode,
            task,
        }
    }

    pub fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    pub fn mode(&self) -> u8 {
        self.mode.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, there: SocketAddr, mode: Arc<AtomicU8>) {
    let Ok(mut far) = TcpStream::connect(there).await else {
        return;
    };
    let (mut asked, mut said) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = near.read(&mut asked) => {
                let Ok(n @ 1..) = read else { return };
                shut(&mode).await;
                if far.write_all(&asked[..n]).await.is_err() {
                    return;
                }
            }
            read = far.read(&mut said) => {
                let Ok(n @ 1..) = read else { return };
                while matches!(mode.load(Ordering::SeqCst), SHUT | HELD) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                let one = mode.compare_exchange(ONE_LOST, OPEN, Ordering::SeqCst, Ordering::SeqCst);
                if one.is_ok() || mode.load(Ordering::SeqCst) == NO_ANSWERS {
                    return;
                }
                let full = mode.compare_exchange(CALLED_FULL, OPEN, Ordering::SeqCst, Ordering::SeqCst);
                if full.is_ok() {
                    let _told = near.write_all(FULL.as_bytes()).await;
                    return;
                }
                if near.write_all(&said[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits while nothing goes through. What was held is let go then, late.
async fn shut(mode: &AtomicU8) {
    while mode.load(Ordering::SeqCst) == SHUT {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
