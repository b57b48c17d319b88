//! One attempt to post a message: where it may go, and what its answer means.
//!
//! Where a name leads to is looked at whenever it is connected to, by the resolver whose addresses
//! are the ones that are connected to: a name that leads elsewhere by now gets nowhere. Over TLS the
//! certificate has to be one for that name, whichever of its addresses was taken.

use super::{AddressPolicy, PushLimits, UrlRefused};
use crate::trust::{Mistrust, Trust};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::{
    Client, Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::RETRY_AFTER,
};
use std::{error::Error as _, net::SocketAddr, sync::Arc, time::Duration};

/// The largest answer of an agent.
const ANSWER_BYTES_MAX: usize = 768 << 10;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What messages are posted with: it connects to no address that was not looked at right before.
pub(super) fn http(
    addresses: &AddressPolicy,
    limits: &PushLimits,
    trust: &Trust,
) -> Result<Client, reqwest::Error> {
    trust
        .http()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(limits.answer)
        .dns_resolver(Arc::new(CheckedResolver(addresses.clone())))
        .user_agent(concat!("acta/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Gives out the addresses of a name only if messages may be posted to all of them.
struct CheckedResolver(AddressPolicy);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.0.clone();
        Box::pin(async move {
            let found = match addresses.addresses_of(name.as_str()).await {
                // It may be known again soon.
                Err(UrlRefused::Unresolved) => return Err(NoAddress.into()),
                found => found?,
            };
            // The port is that of the URL.
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

/// A name leads nowhere at the moment.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
struct NoAddress;

/// What came of an attempt.
pub(super) enum Attempt {
    /// It has the message. What it answered, if it said anything.
    Taken(Option<Bytes>),
    /// It may go better later, and after this time if it said so.
    Again(String, Option<Duration>),
    /// It never will.
    Never(String),
}

pub(super) async fn answered(response: Response) -> Attempt {
    let status = response.status();
    if status.is_success() {
        return match whole(response).await {
            Ok(bytes) => Attempt::Taken(said(bytes)),
            Err(attempt) => attempt,
        };
    }
    let why = format!("it answered {}", status.as_u16());
    let is_passing = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    if !is_passing {
        return Attempt::Never(why);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = after.and_then(|secs| secs.trim().parse().ok()).map(Duration::from_secs);
    Attempt::Again(why, wait)
}

/// The body, unless it is larger than answers may be.
async fn whole(response: Response) -> Result<Bytes, Attempt> {
    let mut body = BytesMut::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| failed(&error))?;
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            // It would be as large the next time.
            let why = format!("its answer has more than {ANSWER_BYTES_MAX} bytes");
            return Err(Attempt::Never(why));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// An answer as JSON; nothing if the agent only says that it has the message.
fn said(bytes: Bytes) -> Option<Bytes> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Ok(serde_json::Value::Null) => None,
        Ok(serde_json::Value::Object(fields)) if fields.is_empty() => None,
        Ok(_) => Some(bytes),
        Err(_) => {
            let text = serde_json::Value::String(String::from_utf8_lossy(&bytes).into_owned());
            Some(text.to_string().into())
        }
    }
}

/// What an error of the client means. Its own message would show the whole URL.
pub(super) fn failed(error: &reqwest::Error) -> Attempt {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<UrlRefused>() {
            return Attempt::Never(reason(refused));
        }
        source = cause.source();
    }
    if let Some(why) = Mistrust::of(error) {
        return Attempt::Again(why.to_string(), None);
    }
    let why = if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "no connection could be made"
    } else {
        "the connection broke"
    };
    Attempt::Again(why.into(), None)
}

pub(super) fn reason(refused: &UrlRefused) -> String {
    refused.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::address::Names;
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;
    use std::{collections::VecDeque, io, net::IpAddr};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(93, 184, 215, 14));
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// What a name leads to, time after time; nothing after the last.
    #[derive(Debug)]
    struct Turning(Mutex<VecDeque<Vec<IpAddr>>>);

    impl Names for Turning {
        fn look_up(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let next = self.0.lock().pop_front();
            Box::pin(async move { next.ok_or_else(|| io::ErrorKind::NotFound.into()) })
        }
    }

    /// Registers a name and posts to it. What came of the post, and how many connections came.
    async fn registered_then_posted(
        policy: AddressPolicy,
        leads_to: &[&[IpAddr]],
    ) -> (Attempt, usize) {
        let turning = leads_to.iter().map(|addresses| addresses.to_vec()).collect();
        let policy = policy.with_names(Turning(Mutex::new(turning)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = policy.parse(&format!("http://agent.example:{port}/a2a")).unwrap();
        policy.resolve(&url).await.expect("it may be registered");
        let limits = PushLimits {
            attempts: 1,
            pause: Duration::from_millis(1),
            answer: Duration::from_secs(60),
        };
        let connections = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&connections);
        let answering = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *counted.lock() += 1;
                let mut request = [0; 4_096];
                assert_ne!(stream.read(&mut request).await.unwrap(), 0);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        });
        let attempt = match http(&policy, &limits, &Trust::new(None).unwrap())
            .unwrap()
            .post(url)
            .send()
            .await
        {
            Ok(response) => answered(response).await,
            Err(error) => failed(&error),
        };
        answering.abort();
        let connections = *connections.lock();
        (attempt, connections)
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_by_now_gets_nowhere() {
        for leads_to in [[&[PUBLIC][..], &[LOOPBACK]], [&[PUBLIC], &[PUBLIC, LOOPBACK]]] {
            let (attempt, connections) =
                registered_then_posted(AddressPolicy::default(), &leads_to).await;
            let Attempt::Never(why) = attempt else { panic!("{leads_to:?}: it was tried") };
            assert!(why.contains("127.0.0.1") && why.contains("--push-allow"), "{why}");
            assert_eq!(connections, 0);
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_anew_for_a_connection() {
        let allowed = || AddressPolicy::new(["127.0.0.0/8".parse().unwrap()]);
        let (attempt, connections) =
            registered_then_posted(allowed(), &[&[PUBLIC], &[LOOPBACK]]).await;
        assert!(matches!(attempt, Attempt::Taken(None)), "what is allowed gets through");
        assert_eq!(connections, 1);
        // A name that is not known for a while may be known again.
        let (attempt, _) = registered_then_posted(allowed(), &[&[LOOPBACK]]).await;
        assert!(matches!(attempt, Attempt::Again(..)));
    }
}
