//! A TCP proxy that loses what it is told to lose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the next request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// It arrives, its answer does not.
    LoseAnswer,
    /// It does not arrive.
    LoseRequest,
}

/// The proxy.
pub struct Lossy {
    pub address: SocketAddr,
    rule: Arc<Mutex<Option<Rule>>>,
    cut: watch::Sender<u64>,
}

impl Lossy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rule = Arc::new(Mutex::new(None));
        let (cut, cuts) = watch::channel(0);
        let rules = rule.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(to).await.unwrap();
                tokio::spawn(copy(client, server, rules.clone(), cuts.clone()));
            }
        });
        Self { address, rule, cut }
    }

    /// Loses something of the next request, once.
    pub fn next(&self, rule: Rule) {
        *self.rule.lock().unwrap() = Some(rule);
    }

    /// Cuts every connection that is open.
    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

async fn copy(
    mut client: TcpStream,
    mut server: TcpStream,
    rule: Arc<Mutex<Option<Rule>>>,
    mut cuts: watch::Receiver<u64>,
) {
    cuts.mark_unchanged();
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut losing = false;
    loop {
        tokio::select! {
            _ = cuts.changed() => return,
            read = client.read(&mut up) => match read {
                Ok(n @ 1..) => {
                    match rule.lock().unwrap().take() {
                        Some(Rule::LoseRequest) => return,
                        Some(Rule::LoseAnswer) => losing = true,
                        None => {}
                    }
                    if server.write_all(&up[..n]).await.is_err() { return }
                }
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(1..) if losing => return,
                Ok(n @ 1..) => if client.write_all(&down[..n]).await.is_err() { return },
                _ => return,
            },
        }
    }
}
