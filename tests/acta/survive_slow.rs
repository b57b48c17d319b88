//! Clients that take their time, or all the connections, or never read: nobody else waits for
//! them, and they cost little memory.

use super::{
    support::{Client, Options, Service, Socket, eventually, soon},
    survive_measure::rss_mib,
    survive_raw::{
        ANSWER_WITHIN, RSS_MIB_MAX, address, connect, first_answer, head, is_well, statuses,
    },
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

const IDLE_CONNECTIONS: usize = 10_000;

const BODY_BEGINS: &str = r#"{"kind""#;
const BODY_ENDS: &str = r#":"user","content":"at last"}"#;

/// Templates of this file: one that speaks without end.
fn templates() -> Value {
    json!({
        "default_template": "echo",
        "workspace_templates": [
            {"name": "echo", "exec": {"argv": ["cat"], "mode": "session", "turn_idle_ms": 40}},
            {"name": "flood", "exec": {"argv": ["yes", "and on and on and on"], "mode": "session", "stop_grace_ms": 300}},
        ],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_are_nobodys_business() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // Some are for the rest of the tests, and for the service beside its connections.
    let wanted = IDLE_CONNECTIONS.min(usize::try_from(hard).unwrap().saturating_sub(2_000));
    if wanted < IDLE_CONNECTIONS {
        eprintln!("only {wanted} idle connections: RLIMIT_NOFILE allows {hard} files");
    }
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let before = rss_mib(service.pid());
    let mut idle = Vec::new();
    for n in 0..wanted {
        let mut stream = connect(&service).await;
        match n % 4 {
            // Says nothing; begins a head; announces a body; was served before.
            0 => {}
            1 => stream.write_all(b"GET /v1/workers HTTP/1.1\r\nHo").await.unwrap(),
            2 => {
                let line = format!("POST /v1/workers/{worker}/input HTTP/1.1");
                let len = BODY_BEGINS.len() + BODY_ENDS.len();
                let more = format!("Content-Type: application/json\r\nContent-Length: {len}\r\n");
                let begun = head(&service, &line, &more) + BODY_BEGINS;
                stream.write_all(begun.as_bytes()).await.unwrap();
            }
            _ => {
                let asked = head(&service, "GET /v1/runtime HTTP/1.1", "");
                stream.write_all(asked.as_bytes()).await.unwrap();
            }
        }
        idle.push(stream);
        if n % 1_000 == 999 {
            is_well(&service, &worker).await;
        }
    }
    is_well(&service, &worker).await;
    println!("{wanted} idle connections: from {before} to {} MiB", rss_mib(service.pid()));
    // They are not forgotten either: each can still go on. The newest of those with a body begun
    // are asked, since a body may take thirty seconds at most.
    let newest = wanted.saturating_sub(400) / 4 * 4 + 2;
    for stream in idle.iter_mut().skip(newest).step_by(100) {
        stream.write_all(BODY_ENDS.as_bytes()).await.unwrap();
        let answer = first_answer(stream).await;
        assert_eq!(statuses(&answer), ["200"], "{answer}");
    }
    drop(idle);
    is_well(&service, &worker).await;
}

/// A head or a body that arrives a byte at a time costs nobody else anything; a body that takes
/// longer than bodies may is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_in_drops_is_given_up() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let mut dribbling = JoinSet::new();
    for n in 0..100 {
        let line = format!("POST /v1/workers/{worker}/input HTTP/1.1");
        let more = "Content-Type: application/json\r\nContent-Length: 5000\r\n";
        let whole = head(&service, &line, more) + &" ".repeat(5_000);
        let at_once = if n % 2 == 0 { 0 } else { whole.len() - 5_000 };
        let mut stream = connect(&service).await;
        dribbling.spawn(async move {
            let (first, rest) = whole.as_bytes().split_at(at_once);
            stream.write_all(first).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let dribble = async {
                for byte in rest {
                    if writer.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            let mut answer = Vec::new();
            let mut buffer = [0; 4096];
            tokio::select! {
                () = dribble => {}
                len = reader.read(&mut buffer) => answer.extend_from_slice(&buffer[..len.unwrap_or(0)]),
            }
            (at_once > 0, String::from_utf8_lossy(&answer).into_owned())
        });
    }
    let begun = Instant::now();
    let mut given_up = 0;
    while given_up < 50 {
        is_well(&service, &worker).await;
        assert!(begun.elapsed() < Duration::from_secs(90), "{given_up} of 50 were given up");
        let next = tokio::time::timeout(Duration::from_millis(500), dribbling.join_next()).await;
        if let Ok(Some(ended)) = next {
            let (is_body, answer) = ended.unwrap();
            assert!(is_body, "{answer}");
            assert_eq!(statuses(&answer), ["400"], "{answer}");
            assert!(answer.contains("did not arrive within"), "{answer}");
            given_up += 1;
            while let Ok(Some(ended)) =
                tokio::time::timeout(Duration::from_millis(5), dribbling.join_next()).await
            {
                given_up += usize::from(ended.unwrap().0);
            }
        }
    }
    assert!(begun.elapsed() > Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_are_for_watching_only() {
    let service = Options::default().manifest(templates()).start().await;
    let worker = service.spawn("echo").await;
    for path in [format!("/v1/workers/{worker}/events/ws"), "/v1/events/ws?after=0".to_owned()] {
        for message in [
            Message::text("hello"),
            Message::text(""),
            Message::text("{".repeat(60_000)),
            Message::binary(vec![0xff; 60_000]),
        ] {
            let mut socket = service.watch(&path).await;
            socket.say(message).await;
            let frames = frames_to_the_end(&mut socket).await;
            assert!(frames.contains("runtime.observation_only"), "{path}: {frames}");
            assert!(frames.contains("1008"), "{path}: {frames}");
        }
    }
    // Frames that no client sends: announced as huge, unmasked, of reserved kinds, torn.
    let rows: [&[u8]; 7] = [
        &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
        &[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4, 5],
        &[0x81, 0x05, b'h', b'e', b'l', b'l', b'o'],
        &[0x83, 0x80, 1, 2, 3, 4],
        &[0xf1, 0x80, 1, 2, 3, 4],
        &[0x09, 0x80, 1, 2, 3, 4],
        &[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe],
    ];
    for bytes in rows {
        let mut stream = upgraded(&service, &worker, None).await;
        stream.write_all(bytes).await.unwrap();
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        while let Ok(len) = soon("the end of the socket", stream.read(&mut buffer)).await {
            if len == 0 {
                break;
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{bytes:?}");
    }
    is_well(&service, &worker).await;
}

async fn frames_to_the_end(socket: &mut Socket) -> String {
    let mut all = String::new();
    loop {
        match socket.next().await {
            super::support::Incoming::End => return all,
            other => all += &format!("{other:?}\n"),
        }
    }
}

/// A WebSocket by hand, whose client takes little into its buffer.
async fn upgraded(client: &Client, worker: &str, receive_bytes: Option<u32>) -> TcpStream {
    let mut stream = match receive_bytes {
        None => connect(client).await,
        Some(bytes) => {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(bytes).unwrap();
            socket.connect(address(client).parse().unwrap()).await.unwrap()
        }
    };
    let line = format!("GET /v1/workers/{worker}/events/ws?after=0 HTTP/1.1");
    let more = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    stream.write_all(head(client, &line, more).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    stream
}

/// A child that prints as fast as it can, observers that read slowly or never, and everybody
/// else, who does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_slowed_down_and_nobody_else_is() {
    let service = Options::default()
        .manifest(templates())
        .arg("--observer-idle-ms=1500")
        .env("RUST_LOG", "warn")
        .start()
        .await;
    let quiet = service.spawn("echo").await;
    let loud = service.spawn("flood").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(upgraded(&service, &loud, Some(4096)).await);
    }
    let mut slow = upgraded(&service, &loud, Some(4096)).await;
    let begun = Instant::now();
    let mut most = 0;
    let mut read = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        let before = service.worker(&quiet).await["transcript_len"].as_u64().unwrap();
        service.input(&quiet, "still there?").await;
        eventually("the quiet worker answers", || async {
            let now = service.worker(&quiet).await["transcript_len"].as_u64().unwrap();
            (now >= before + 2).then_some(())
        })
        .await;
        assert!(asked.elapsed() < ANSWER_WITHIN, "it took {:?}", asked.elapsed());
        most = most.max(rss_mib(service.pid()));
        let mut buffer = [0; 2048];
        read += slow.read(&mut buffer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("at most {most} MiB; a slow observer has read {read} bytes");
    assert!(most < RSS_MIB_MAX, "the service takes {most} MiB");
    assert!(read > 0);
    // Who never read is closed by now: what was on its way comes, and then the end.
    for mut stream in silent {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len) = soon("a silent observer is closed", stream.read(&mut buffer)).await {
            if len == 0 {
                break;
            }
        }
    }
    let asked = Instant::now();
    service.post_empty(&format!("/v1/workers/{loud}/stop")).await.ok();
    let work = service.data().join("work").join(&loud);
    eventually("the flood ends", || async {
        super::survive_measure::processes_in(&work).is_empty().then_some(())
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    is_well(&service, &quiet).await;
}

/// Whoever is closed for not reading is told where to go on, if it looks in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_too_late_is_closed_with_a_cursor() {
    let service = Options::default()
        .manifest(templates())
        .arg("--observer-idle-ms=500")
        .env("RUST_LOG", "warn")
        .start()
        .await;
    let loud = service.spawn("flood").await;
    // It does not read for longer than it may, but looks again before the close gives up. How long it takes
    // until the buffers on the way are full depends upon the machine, so it is tried with several pauses.
    let (mut code, mut cursor, mut last) = (0, String::new(), String::new());
    'pauses: for pause_ms in (1_300..).step_by(700).take(20) {
        let mut late = service.watch(&format!("/v1/workers/{loud}/events/ws?after=0")).await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        for _ in 0..500 {
            match late.next().await {
                super::support::Incoming::Frame(frame) => {
                    last = frame["envelope"]["cursor"].as_str().unwrap().to_owned();
                }
                super::support::Incoming::Close(closed, reason) => {
                    (code, cursor) = (closed, reason);
                    break 'pauses;
                }
                _ => break,
            }
        }
    }
    assert_eq!(code, 1013);
    service.post_empty(&format!("/v1/workers/{loud}/stop")).await.ok();
    let resumed = format!("/v1/workers/{loud}/events/ws?cursor={cursor}");
    let mut resumed = service.watch(&resumed).await;
    assert_eq!(resumed.frame().await["envelope"]["payload"]["event"], "snapshot");
    let next = resumed.frame().await["envelope"]["cursor"].as_str().unwrap().to_owned();
    assert_ne!(next, last, "what was seen does not come again");
}

/// Two hundred at once under one key are one command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_two_hundred_times_at_once_is_one_command() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let mut at_once = JoinSet::new();
    for _ in 0..200 {
        let client = service.with_token(&service.token());
        let path = format!("/v1/workers/{worker}/input");
        at_once.spawn(async move {
            let body = json!({"kind": "user", "content": "once"});
            client.post_keyed(&path, "the-same", &body).await.ok()
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = at_once.join_next().await {
        answers.push(answer.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let inputs = service.events(&format!("worker={worker}&type=worker_input_accepted")).await;
    assert_eq!(inputs.len(), 1);
}
