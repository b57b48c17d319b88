//! What happens to agents that connect in, as lines for people.

use super::{Ink, Line, RecordView};
use crate::envelope;
use acta_events::{ActivityKind, DegradedReason, DeliveryMode, Event, Inbox};

/// A line for an event of an external worker; none for any other.
pub(super) fn describe(record: &RecordView<'_>, agent: &str, event: &Event) -> Option<Line> {
    Some(match event {
        Event::AgentAwaited(e) => {
            let label = e.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
            Line::plain(format!("waits for an agent to connect{label}"))
        }
        Event::AgentRegistered(e) => match (e.delivery.mode, &e.delivery.url) {
            // The URL may have a secret in its path.
            (DeliveryMode::Push, Some(_)) => {
                Line::plain("agent registered, messages are posted to its URL")
            }
            _ => Line::plain("agent registered, it polls"),
        },
        Event::WorkerOnline(_) => Line::plain("agent online"),
        Event::WorkerOffline(_) => Line::new(Ink::Alarm, "agent lost: its lease ran out"),
        Event::WorkerDegraded(e) => {
            let why = match e.reason {
                DegradedReason::Wedged => "it says that it is stuck",
                DegradedReason::ErrorRate => "half of what it does fails, or more",
                DegradedReason::Deaf => "it beats, but does not ask for messages that wait",
            };
            let sample = record.text();
            let sample = if sample.is_empty() { String::new() } else { format!(": {sample}") };
            Line::new(Ink::Alarm, format!("agent degraded: {why}{sample}"))
        }
        Event::WorkerRecovered(_) => Line::plain("agent recovered"),
        Event::MessageReceived(e) => {
            let from = e.source.as_ref().map_or("user", |source| source.worker_id.as_str());
            Line::said(Ink::Person, from, &said(record))
        }
        Event::ReplyReceived(e) => {
            Line::said(Ink::Person, format!("{} answers", e.source.worker_id), &said(record))
        }
        Event::MessageAnswered(_) => Line::said(Ink::Agent, agent, &said(record)),
        Event::WorkerNotified(_) => Line::said(Ink::Agent, agent, &said(record)),
        Event::WorkerReported(e) => {
            Line::said(Ink::Dim, format!("{agent}, {}", activity(e.activity)), &said(record))
        }
        Event::InboxRead(e) => {
            let what = match e.inbox {
                Inbox::Messages => "messages",
                Inbox::Replies => "replies",
                Inbox::All => "messages and replies",
            };
            Line::new(Ink::Dim, format!("{what} up to {} dealt with", e.through))
        }
        Event::MessageDelivered(e) => {
            Line::new(Ink::Dim, format!("message {} delivered, attempt {}", e.message, e.attempts))
        }
        Event::DeliveryFailed(e) => Line::new(
            Ink::Alarm,
            format!(
                "message {} not delivered after attempt {}: {}",
                e.message, e.attempts, e.reason
            ),
        ),
        Event::DeliveryRetried(e) => {
            Line::plain(format!("message {} is to be tried again", e.message))
        }
        _ => return None,
    })
}

fn activity(activity: ActivityKind) -> &'static str {
    match activity {
        ActivityKind::A2aSend => "sent",
        ActivityKind::A2aReceive => "received",
        ActivityKind::TaskUpdate => "on its task",
        ActivityKind::AgentLog => "for the record",
        ActivityKind::SkillPromotion => "learned",
        ActivityKind::MemoryWrite => "remembers",
        ActivityKind::Error => "failed",
    }
}

/// The words of an envelope, a notification or a report.
pub(in super::super) fn said(record: &RecordView<'_>) -> String {
    let content = record.content.as_ref().map(ToString::to_string).unwrap_or_default();
    if content.is_empty() { content } else { envelope::text_of(content.as_bytes()) }
}
