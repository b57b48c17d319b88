//! Speaking WebSocket.

use super::{Client, soon};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        http::{HeaderName, HeaderValue, header::AUTHORIZATION},
    },
};

/// An open WebSocket.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What comes out of one. Pings are answered without being shown.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    Frame(Value),
    Pong(Vec<u8>),
    Close(u16, String),
    /// The connection is gone.
    End,
}

impl Socket {
    /// Opens one; else the status and the body of the answer.
    pub async fn connect(
        client: &Client,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, (u16, String)> {
        let url = format!("{}{path}", client.base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = &client.bearer {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        match soon("an open WebSocket", Box::pin(connect_async(request))).await {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// The next thing that comes. Pings are none and do not prolong the wait.
    pub async fn next(&mut self) -> Incoming {
        soon("a WebSocket message", self.next_but_pings()).await
    }

    async fn next_but_pings(&mut self) -> Incoming {
        loop {
            match self.0.next().await {
                None | Some(Err(_)) => return Incoming::End,
                Some(Ok(Message::Text(text))) => {
                    return Incoming::Frame(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Pong(bytes))) => return Incoming::Pong(bytes.to_vec()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Incoming::Close(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(other)) => panic!("not what the service sends: {other:?}"),
            }
        }
    }

    /// The next frame.
    pub async fn frame(&mut self) -> Value {
        match self.next().await {
            Incoming::Frame(frame) => frame,
            other => panic!("not a frame: {other:?}"),
        }
    }

    /// Frames up to and with the first that is looked for.
    pub async fn until(&mut self, mut found: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.frame().await);
            if frames.last().is_some_and(&mut found) {
                return frames;
            }
        }
    }

    /// The code of the diagnostic and that of the Close frame which follow now, and nothing
    /// after them.
    pub async fn refusal(&mut self) -> (String, u16) {
        let frame = self.frame().await;
        assert_eq!(super::keys(&frame), ["diagnostic", "kind"], "{frame}");
        assert_eq!(frame["kind"], "diagnostic");
        assert_eq!(super::keys(&frame["diagnostic"]), ["code", "message"]);
        let Incoming::Close(code, reason) = self.next().await else { panic!("no Close frame") };
        assert!(!reason.is_empty(), "a Close frame tells the reason");
        assert_eq!(self.next().await, Incoming::End);
        (frame["diagnostic"]["code"].as_str().unwrap().to_owned(), code)
    }

    pub async fn say(&mut self, message: Message) {
        soon("a message is sent", self.0.send(message)).await.unwrap();
    }
}
