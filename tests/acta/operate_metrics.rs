//! What an operator watches: metrics, judged by a parser that is not ours, and `acta status`.

use crate::support::{Client, Options, Service, eventually, keys};
use openmetrics_parser::{MetricNumber, PrometheusValue, openmetrics, prometheus};
use reqwest::{Method, header::ACCEPT};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Values by family and labels, as in `acta_workers{running}`. A histogram is its count and sum.
type Samples = BTreeMap<String, f64>;

async fn scrape(client: &Client) -> Samples {
    let answer = client.get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    let parsed = prometheus::parse_prometheus(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut samples = Samples::new();
    for (name, family) in parsed.families {
        assert!(!family.help.is_empty(), "{name} says nothing of itself");
        for sample in family.iter_samples() {
            let labels = sample.get_labelset().unwrap();
            let values: Vec<_> = labels.iter().map(|(_, value)| value.to_owned()).collect();
            let at = match values.join(",") {
                none if none.is_empty() => name.clone(),
                values => format!("{name}{{{values}}}"),
            };
            match &sample.value {
                PrometheusValue::Gauge(number) => drop(samples.insert(at, number.as_f64())),
                PrometheusValue::Counter(counter) => {
                    samples.insert(at, counter.value.as_f64());
                }
                PrometheusValue::Histogram(histogram) => {
                    let sum = histogram.sum.as_ref().map_or(f64::NAN, MetricNumber::as_f64);
                    samples.insert(format!("{at} sum"), sum);
                    samples.insert(format!("{at} count"), histogram.count.unwrap() as f64);
                }
                other => panic!("{at} is of no known type: {other:?}"),
            }
        }
    }
    samples
}

fn of<'a>(samples: &'a Samples, family: &str) -> Vec<&'a str> {
    let of = samples.keys().filter(|at| at.split('{').next() == Some(family));
    of.map(String::as_str).collect()
}

#[tokio::test]
async fn metrics_tell_what_happened_in_both_forms_of_prometheus() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 2).await;
    let path = format!("/v1/workers/{worker}/input");
    let input = json!({"kind": "user", "content": "again"});
    service.post_keyed(&path, "k1", &input).await.ok();
    service.post_keyed(&path, "k1", &input).await.ok();
    service.post("/v1/workers/w-none/input", &input).await.refused(404, "worker_not_found");
    service.rests(&worker, 4).await;
    let page = service.get("/v1/events?limit=1").await.ok();
    service.put("/v1/cursors/mine", &json!({"cursor": page["cursor"]})).await.ok();
    let samples = eventually("dispatch has seen everything", || async {
        let samples = scrape(&service).await;
        (samples["acta_lag_records{dispatch}"] == 0.0).then_some(samples)
    })
    .await;
    let head = service.head().await as f64;
    for (at, expected) in [
        ("acta_commands_total{input,recorded}", 2.0),
        ("acta_commands_total{input,replayed}", 1.0),
        ("acta_commands_total{input,worker_not_found}", 1.0),
        ("acta_commands_total{create_worker,recorded}", 1.0),
        ("acta_commands_total{commit_cursor,recorded}", 1.0),
        ("acta_commit_records sum", head),
        ("acta_head_records", head),
        ("acta_ready{ready}", 1.0),
        ("acta_epoch", 1.0),
        ("acta_workers{running}", 1.0),
        ("acta_workers{stopped}", 0.0),
        ("acta_hosts{online}", 1.0),
        ("acta_hosts{lost}", 0.0),
        ("acta_lag_records{views}", 0.0),
        ("acta_lag_records{index}", 0.0),
        ("acta_lag_records{index_on_disk}", head),
        ("acta_cursors", 1.0),
        ("acta_cursor_lag_records{mine,operator}", head - 1.0),
        ("acta_queue_commands", 0.0),
        ("acta_failed_commits_total{unknown}", 0.0),
    ] {
        assert_eq!(samples.get(at), Some(&expected), "{at} in {samples:#?}");
    }
    for at in ["acta_commit_seconds sum", "acta_commit_commands count", "acta_disk_free_bytes"] {
        assert!(samples[at] > 0.0, "{at} in {samples:#?}");
    }
    assert!(samples["process_resident_memory_bytes"] > 1e6, "{samples:#?}");
    assert!(samples["acta_commit_commands sum"] >= samples["acta_commit_commands count"]);
    assert!(samples["acta_commit_seconds sum"] < 60.0, "{samples:#?}");
    assert_eq!(samples["acta_segments"], 0.0);
    let disk: f64 = of(&samples, "acta_disk_bytes").iter().map(|at| samples[*at]).sum();
    assert!(disk > 4096.0, "{samples:#?}");

    let ask = service.request(Method::GET, "/metrics");
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = service.send(ask.header(ACCEPT, accept)).await;
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), form);
    let text = answer.text();
    let parsed = openmetrics::parse_openmetrics(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert!(parsed.families.len() > 20, "{text}");
}

#[tokio::test]
async fn observers_are_counted_while_they_are_connected() {
    let service = Service::start().await;
    let counted = |way: &'static str, expected: f64| {
        let service = &service;
        async move {
            eventually(&format!("{expected} observers by {way}"), || async {
                let samples = scrape(service).await;
                (samples[&format!("acta_observers{{{way}}}")] == expected).then_some(())
            })
            .await;
        }
    };
    counted("websocket", 0.0).await;
    let sockets = [service.watch("/v1/events/ws").await, service.watch("/v1/events/ws").await];
    counted("websocket", 2.0).await;
    counted("http", 0.0).await;
    drop(sockets);
    counted("websocket", 0.0).await;
    let stream = service.request(Method::GET, "/v1/events").header(ACCEPT, "text/event-stream");
    let stream = stream.send().await.unwrap();
    counted("http", 1.0).await;
    drop(stream);
    counted("http", 0.0).await;
}

#[tokio::test]
async fn labels_are_bounded_and_hold_nothing_that_was_said() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "canary-input").await;
    service.rests(&worker, 2).await;
    for n in 0..20 {
        let path = format!("/v1/workers/canary-worker-{n}/input");
        let answer = service.post(&path, &json!({"kind": "user", "content": "x"})).await;
        answer.refused(404, "worker_not_found");
        service.get(&format!("/v1/canary-route-{n}")).await.refused(404, "not_found");
    }
    let cursor = service.get("/v1/events?limit=1").await.ok()["cursor"].clone();
    for n in 0..140 {
        service.put(&format!("/v1/cursors/c{n}"), &json!({ "cursor": cursor })).await.ok();
    }
    let samples = scrape(&service).await;
    assert_eq!(samples["acta_cursors"], 140.0);
    assert_eq!(of(&samples, "acta_cursor_lag_records").len(), 128);
    assert!(samples.len() < 256, "{}", samples.len());
    let text = service.get("/metrics").await.text();
    let status = service.get("/v1/status").await.text();
    let data = service.data().display().to_string();
    for secret in ["canary", &worker, &service.token(), &data] {
        assert!(!text.contains(secret), "{secret} in {text}");
        assert!(!status.contains(secret), "{secret} in {status}");
    }
}

#[tokio::test]
async fn whoever_may_read_workers_may_look_and_looking_changes_nothing() {
    let interval = ["--audit-reads", "--audit-reads-interval-ms=1"];
    let options = interval.iter().fold(Options::default(), |options, arg| options.arg(*arg));
    let service = options.start().await;
    for path in ["/metrics", "/v1/status"] {
        service.anonymous().get(path).await.refused(401, "unauthorized");
    }
    let host = service.issue(&json!({"role": "host", "host_id": "h-1"})).await;
    let host = service.with_token(host["token"].as_str().unwrap());
    for path in ["/metrics", "/v1/status"] {
        host.get(path).await.refused(403, "forbidden");
    }
    let mut readers = Vec::new();
    for role in ["observer", "auditor"] {
        let token = service.issue(&json!({ "role": role })).await;
        readers.push(service.with_token(token["token"].as_str().unwrap()));
    }
    let before = service.head().await;
    for reader in &readers {
        for _ in 0..10 {
            scrape(reader).await;
            reader.get("/v1/status").await.ok();
        }
    }
    // The first thing that is recorded of an auditor is what is read after that.
    readers[1].get("/v1/hosts").await.ok();
    let records = eventually("a read is recorded", || async {
        let records = service.events(&format!("after={before}&watching=1")).await;
        (!records.is_empty()).then_some(records)
    })
    .await;
    assert_eq!(records.len(), 1, "{records:?}");
    let reads = records[0]["data"]["reads"].to_string();
    assert!(reads.contains("hosts") && !reads.contains("metrics"), "{reads}");
    assert!(!reads.contains("status"), "{reads}");
}

#[tokio::test]
async fn status_is_one_screen_of_the_same() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let ran = service.acta(&["status"]).await;
    let screen = ran.ok();
    let row = |name: &str| {
        let row = screen.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        row.unwrap_or_else(|| panic!("no {name} in {screen}"))
    };
    assert!(row("service").ends_with(", ready"), "{screen}");
    assert!(row("head").starts_with(&service.head().await.to_string()), "{screen}");
    assert_eq!(row("workers"), "0 cancelled, 1 running, 0 stopped");
    assert!(row("disk").contains("free"), "{screen}");
    assert!(screen.lines().count() <= 24, "{screen}");

    let ran = service.acta(&["status", "-o", "json"]).await;
    let status: Value = serde_json::from_str(ran.ok()).unwrap();
    let fields = [
        "cursors",
        "cursors_total",
        "disk",
        "epoch",
        "head",
        "health",
        "history",
        "hosts",
        "lag",
        "last_record_at",
        "log_id",
        "observers",
        "process",
        "queue_commands",
        "snapshot",
        "uptime_seconds",
        "version",
        "workers",
    ];
    assert_eq!(keys(&status["status"]), fields);
    assert_eq!(status["status"]["workers"]["running"], 1);

    // A log in memory has no disk to speak of.
    let service = Options::default().arg("--store=memory").start().await;
    assert_eq!(service.get("/v1/status").await.ok()["status"]["disk"], Value::Null);
    assert!(!service.acta(&["status"]).await.ok().contains("\ndisk"));
    assert_eq!(of(&scrape(&service).await, "acta_disk_bytes"), Vec::<&str>::new());
}

#[tokio::test]
async fn the_documents_name_every_metric_and_no_other() {
    let service = Service::start().await;
    let cursor = service.get("/v1/events?limit=1").await.ok()["cursor"].clone();
    service.put("/v1/cursors/mine", &json!({ "cursor": cursor })).await.ok();
    let text = service.get("/metrics").await.text();
    let of_types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<&str> = of_types.filter_map(|line| line.split(' ').next()).collect();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = fs::read_to_string(file).unwrap();
    let word = |c: char| !(c.is_ascii_lowercase() || c == '_');
    let named: BTreeSet<&str> = document
        .split(word)
        .filter(|word| word.starts_with("acta_") || word.starts_with("process_"))
        .collect();
    // What there is about the service itself needs no explanation.
    let plain =
        ["acta_build_info", "acta_cursors", "acta_epoch", "acta_uptime_seconds", "process_max_fds"];
    for name in names.difference(&named) {
        assert!(plain.contains(name), "docs/operations.md does not tell about {name}");
    }
    let unknown: Vec<_> = named.difference(&names).collect();
    assert!(unknown.is_empty(), "docs/operations.md tells about {unknown:?}, which are not there");
}
