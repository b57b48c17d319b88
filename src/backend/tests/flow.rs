//! What a child says arrives whole, and no faster than it is taken.

use super::*;
use std::fmt::Write as _;

#[tokio::test]
async fn a_flood_arrives_to_the_last_byte() {
    let (_, reports) = Rig::start(session(&["seq", "1", "1000000"])).end().await;
    let mut expected = String::new();
    for number in 1..=1_000_000 {
        writeln!(expected, "{number}").expect("a string takes all");
    }
    assert!(text(&reports) == expected, "the text differs");
    let mut span = 0;
    for report in &reports {
        match report {
            Report::Output { content, .. } => span += content.len(),
            Report::TextDone { .. } => {
                assert!((1..=SPAN_BYTES_MAX).contains(&span));
                span = 0;
            }
            _ => {}
        }
    }
    assert_eq!(span, 0, "the last span is done");
    let lines = brief(&reports[reports.len() - 2..]);
    assert_eq!(lines, ["end 1 Finished", "exited Some(0) None"]);
}

#[tokio::test]
async fn text_of_any_language_is_cut_between_characters() {
    let check = async |unit: &str| {
        let line = format!("yes '{unit}' | head -n 50000 | tr -d '\\n'");
        let (_, reports) = Rig::start(script(&line)).end().await;
        assert!(text(&reports) == unit.repeat(50_000), "{unit}");
    };
    check("aé€😀").await;
    check("€").await;
    check("x😀").await;
}

#[tokio::test]
async fn a_character_may_come_in_two_writes() {
    let mut rig = Rig::start(script(r"printf 'a\342\202'; read x; printf '\254b\303'"));
    rig.until_text("a").await;
    rig.input("go");
    let (_, reports) = rig.end().await;
    assert_eq!(text(&reports), "a€b\u{fffd}");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replaced() {
    let (_, reports) = Rig::start(script(r"printf 'a\377\000b\300\200\n'")).end().await;
    assert_eq!(text(&reports), "a\u{fffd}\0b\u{fffd}\u{fffd}\n");
    let (_, reports) = Rig::start(script(r"head -c 100000 /dev/zero | tr '\0' '\377'")).end().await;
    assert!(text(&reports) == "\u{fffd}".repeat(100_000));
}

#[tokio::test]
async fn standard_error_is_a_diagnosis() {
    let (_, reports) =
        Rig::start(script(r"printf 'oh\342\202' >&2; printf '\254' >&2")).end().await;
    assert_eq!(stderr(&reports), "oh€");
    let (_, reports) = Rig::start(script("seq 1 50000 >&2")).end().await;
    let text = stderr(&reports);
    assert!(text.starts_with("1\n2\n") && text.ends_with("\n50000\n"));
    assert_eq!(text.lines().count(), 50_000);
    assert!(!reports.iter().any(|report| matches!(report, Report::TurnEnded { .. })));
}

#[tokio::test]
async fn a_slow_outlet_slows_the_child() {
    // The child counts in a file how much it got rid of; the outlet takes nothing but the
    // first report.
    let dir = tempfile::tempdir().expect("a directory");
    let text = "i=0; while [ $i -lt 1000 ]; do head -c 4096 /dev/zero; i=$((i+1)); \
                echo $i > count; done";
    let spec = ExecSpec { work_dir: dir.path().into(), ..script(text) };
    let rig = Rig::gated(spec, 1);
    let count = || {
        let text = std::fs::read_to_string(dir.path().join("count")).unwrap_or_default();
        text.trim().parse::<usize>().unwrap_or(0)
    };
    let process = rig.process().await;
    // The child is stuck when it makes no progress while it has all the time it wants.
    let mut last = 0;
    let stuck = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = count();
            if now > 0 && now == last {
                return now;
            }
            last = now;
        }
    };
    let stuck = timeout(PATIENCE, stuck).await.expect("it gets stuck");
    // 64 KiB are in the pipe, 32 KiB in one report.
    assert!(stuck * 4096 <= 96 * 1024 + 4096, "{stuck} writes");
    assert!(is_alive(&process));
    rig.gate.add_permits(Semaphore::MAX_PERMITS - 1);
    let (_, reports) = rig.end().await;
    assert_eq!(super::text(&reports).len(), 1000 * 4096);
}

#[tokio::test]
async fn inputs_reach_a_child_that_never_stops_talking() {
    let mut rig = Rig::start(script("yes & read a; kill $!; wait $!; echo heard $a"));
    rig.until_text("y\ny\n").await;
    rig.input("you");
    let (_, reports) = rig.end().await;
    assert!(text(&reports).ends_with("heard you\n"));
}
