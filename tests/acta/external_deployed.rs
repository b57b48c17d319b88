//! The deployed client of the original platform, and what happens to it.

use crate::support::{Deployed, Options, Service, envelope, reply_to};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};

/// A request byte by byte, as Go's HTTP client writes it.
fn raw(
    service: &Service,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&str>,
) -> (u16, Value) {
    let address = service.base.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nUser-Deployed: Go-http-client/1.1\r\n"
    );
    if let Some(body) = body {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    if body.is_none() {
        request += "Accept: application/json\r\n";
    }
    request += &format!("Authorization: Bearer {token}\r\n");
    if body.is_some() {
        request += "Content-Type: application/json\r\n";
    }
    request += "Accept-Encoding: identity\r\nConnection: close\r\n\r\n";
    request += body.unwrap_or_default();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn its_requests_are_understood_to_the_byte() {
    let service = Service::start().await;
    let (asker, agent) = (Deployed::connected(&service).await, Deployed::awaited(&service).await);
    let token = agent.client.bearer.clone().unwrap();
    let id = &agent.id;
    let register = format!(
        r#"{{"agent_card":{{"description":"molecule connect (CLI bridge)","name":"laptop","version":"0.1.0"}},"delivery_mode":"poll","id":"{id}"}}"#
    );
    let (status, body) = raw(&service, "POST", "/registry/register", &token, Some(&register));
    assert_eq!((status, body), (200, json!({"status": "registered", "delivery_mode": "poll"})));
    let beat = format!(r#"{{"runtime_state":"ok","uptime_seconds":0,"workspace_id":"{id}"}}"#);
    let (status, body) = raw(&service, "POST", "/registry/heartbeat", &token, Some(&beat));
    assert_eq!((status, body), (200, json!({"status": "ok"})));
    let poll = format!("/workspaces/{id}/activity?limit=50&type=a2a_receive");
    assert_eq!(raw(&service, "GET", &poll, &token, None), (200, json!([])));
    asker.ask(&agent, "m-1", "ping").await;
    let (status, rows) = raw(&service, "GET", &poll, &token, None);
    assert_eq!((status, rows.as_array().unwrap().len()), (200, 1));
    let row = &rows[0];
    let reply = reply_to(row, "pong").to_string();
    let path = format!("/workspaces/{}/a2a", asker.id);
    let (status, _) = raw(&service, "POST", &path, &token, Some(&reply));
    assert_eq!(status, 200);
    let next = format!(
        "/workspaces/{id}/activity?limit=50&since_id={}&type=a2a_receive",
        row["id"].as_str().unwrap()
    );
    assert_eq!(raw(&service, "GET", &next, &token, None), (200, json!([])));
    // A cursor file from elsewhere: it begins again when it hears 410.
    let stale = format!("/workspaces/{id}/activity?limit=50&since_id=act-999999&type=a2a_receive");
    assert_eq!(raw(&service, "GET", &stale, &token, None).0, 410);
    assert_eq!(raw(&service, "GET", &poll, &token, None), (200, json!([])));
    assert_eq!(asker.replies().await.len(), 1);
}

#[tokio::test]
async fn two_that_write_to_each_other_come_to_rest() {
    let service = Service::start().await;
    let (mut one, mut two) =
        (Deployed::connected(&service).await, Deployed::connected(&service).await);
    one.ask(&two, "from one", "hello").await;
    two.ask(&one, "from two", "hello").await;
    let mut answered = 0;
    let mut quiet = 0;
    while quiet < 3 {
        quiet += 1;
        for agent in [&mut one, &mut two] {
            // It answers whatever has a source.
            for row in agent.poll().await {
                agent.reply(&row, "hello to you").await;
                answered += 1;
                quiet = 0;
            }
        }
        assert!(answered < 10, "they answer each other for ever");
    }
    assert_eq!(answered, 2);
    let head = service.head().await;
    assert!(one.poll().await.is_empty() && two.poll().await.is_empty());
    assert_eq!(service.head().await, head);
    assert_eq!((one.replies().await.len(), two.replies().await.len()), (1, 1));
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_when_the_service_is_killed() {
    let mut service = Options::default().start().await;
    let (asker, mut agent) =
        (Deployed::connected(&service).await, Deployed::connected(&service).await);
    let mut seen = Vec::new();
    for round in 0..6 {
        asker.ask(&agent, &format!("m-{round}"), &round.to_string()).await;
        let rows = if round % 2 == 0 { agent.poll().await } else { Vec::new() };
        service.kill9().await;
        service.restart_here().await;
        // Whoever did not hear an answer asks again.
        let again = envelope(&format!("m-{round}"), &round.to_string());
        asker.client.post(&agent.path("/a2a"), &again).await.ok();
        for row in rows.into_iter().chain(agent.poll().await) {
            agent.reply(&row, "done").await;
            agent.reply(&row, "done").await;
            seen.push(row["summary"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5"]);
    assert!(agent.poll().await.is_empty());
    let kinds = agent.events(&service).await;
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert_eq!((count("message_received"), count("message_answered")), (6, 6));
    assert_eq!(asker.replies().await.len(), 6);
    // Its token is still the one it was given.
    agent.beat().await;
}
