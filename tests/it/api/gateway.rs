//! The gateway of a worker, as a caller sees it: it checks the hello and answers what the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use lambda_agent::wire::{Frame, Message, VERSION, decode, encode};
use lambda_openstack::task::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

/// What a caller said, and how it is answered.
pub struct Said {
    pub message: Message,
    pub body: Bytes,
    stream: Arc<Mutex<OwnedWriteHalf>>,
}

impl Said {
    /// Answers with a message.
    pub async fn answer(&self, message: Message, body: &'static [u8]) {
        write(&self.stream, message, Bytes::from_static(body)).await;
    }

    /// Answers a call.
    pub async fn done(&self, execution: &str, failure: Option<serde_json::Value>, body: &'static [u8]) {
        let Message::Call { call, .. } = self.message else { panic!("no call: {:?}", self.message) };
        self.answer(Message::CallDone { call, execution: execution.to_owned(), failure }, body).await;
    }

    /// Ends the connection.
    pub async fn hang_up(&self) {
        self.stream.lock().await.shutdown().await.unwrap();
    }
}

pub struct Gateway {
    pub address: String,
    pub connections: Arc<AtomicU32>,
    said: mpsc::Receiver<Said>,
}

impl Gateway {
    pub async fn open(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tell, said) = mpsc::channel(64);
        let connections = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&connections);
        let inner = tasks.clone();
        tasks.run("fake gateway", async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                inner.run("fake gateway connection", serve(stream, tell.clone()));
            }
        });
        Self { address, connections, said }
    }

    /// The next thing that a caller says.
    pub async fn next(&mut self) -> Said {
        tokio::time::timeout(std::time::Duration::from_secs(20), self.said.recv()).await.expect("within 20 s").unwrap()
    }
}

async fn serve(stream: TcpStream, tell: mpsc::Sender<Said>) {
    let (mut read, write_half) = stream.into_split();
    let stream = Arc::new(Mutex::new(write_half));
    let mut buffer = BytesMut::new();
    loop {
        while let Some(frame) = decode(&mut buffer).unwrap() {
            match frame.message {
                Message::HelloCaller { version: VERSION, secret } if secret == "the-secret" => {
                    write(&stream, Message::Welcome { session: String::new(), received: 0 }, Bytes::new()).await;
                }
                Message::HelloCaller { .. } => {
                    write(&stream, Message::Refused { reason: "wrong secret".to_owned() }, Bytes::new()).await;
                }
                Message::Ping => write(&stream, Message::Ack, Bytes::new()).await,
                message => {
                    let said = Said { message, body: frame.body, stream: Arc::clone(&stream) };
                    if tell.send(said).await.is_err() {
                        return;
                    }
                }
            }
        }
        if !matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

async fn write(stream: &Mutex<OwnedWriteHalf>, message: Message, body: Bytes) {
    let mut bytes = BytesMut::new();
    encode(&Frame { sequence: 0, ack: 0, message, body }, &mut bytes).unwrap();
    // The caller may have gone.
    let _ = stream.lock().await.write_all(&bytes).await;
}
