//! Observing a worker of another service: its frames as they come.

use super::{
    ANSWER_DEADLINE, Remotes,
    call::{RemoteError, refusal, token, url},
};
use crate::trust::Mistrust;
use acta_events::RemoteAddress;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        Error,
        client::IntoClientRequest as _,
        http::{HeaderValue, header::AUTHORIZATION},
        protocol::WebSocketConfig,
    },
};

/// The largest frame that is passed on, in bytes: a snapshot has 256 contents in it.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A connection to the observation of another service.
pub(crate) type Frames = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Remotes {
    /// Opens the observation of a worker there.
    pub(crate) async fn watch(
        &self,
        address: &RemoteAddress,
        worker: &str,
        query: Option<&str>,
    ) -> Result<Frames, RemoteError> {
        let mut url = url(address, &["workers", worker, "events", "ws"])?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).map_err(|()| RemoteError::Unreachable)?;
        url.set_query(query);
        let mut request =
            url.as_str().into_client_request().map_err(|_| RemoteError::Unreachable)?;
        if let Some(token) = token(address)? {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| RemoteError::Unauthorized)?;
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let connector = Some(self.trust.connector());
        // Boxed, since a handshake has much to remember.
        let connecting =
            Box::pin(connect_async_tls_with_config(request, Some(config), true, connector));
        match tokio::time::timeout(ANSWER_DEADLINE, connecting).await {
            Ok(Ok((frames, _))) => Ok(frames),
            Ok(Err(Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                let status = reqwest::StatusCode::from_u16(response.status().as_u16());
                Err(refusal(status.unwrap_or_default(), body))
            }
            Ok(Err(error)) if let Some(why) = Mistrust::of(&error) => {
                Err(RemoteError::Mistrusted(why))
            }
            Ok(Err(Error::Io(_))) => Err(RemoteError::Unreachable),
            Ok(Err(error)) => Err(RemoteError::NotUnderstood(format!(
                "the handshake of the observation failed ({})",
                match error {
                    Error::Protocol(_) => "protocol",
                    _ => "other",
                }
            ))),
            Err(_) => Err(RemoteError::NoAnswer),
        }
    }
}
