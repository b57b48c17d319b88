//! Understands a header in one pass, if it is exactly as [`crate::Record::new`] writes it.
//!
//! Almost every header is. Whatever is not, down to a space or an escape in a name, is none of
//! its business: it answers with nothing, and the header is read, or refused with a reason, as
//! any JSON. What it understands it understands in the same way.

use crate::{
    Event, Timestamp,
    ids::{Actor, IdempotencyKey, RuntimeId, Sequence, TraceParent, Version, WorkerId},
    record::{CommandRef, ContentMeta, Header, MediaType},
};
use uuid::Uuid;

/// The header and the note about its content. Texts that are those of the header before it are
/// shared with it.
pub(crate) fn read(json: &[u8], before: Option<&Header>) -> Option<(Header, Option<ContentMeta>)> {
    let mut scan = Scan { rest: std::str::from_utf8(json).ok()? };
    scan.word("{\"seq\":")?;
    let seq = Sequence(scan.number()?);
    let id = Uuid::try_parse(scan.text_of::<36>(",\"id\":\"")?).ok()?;
    let time = Timestamp::parse(scan.text_of::<27>(",\"time\":\"")?).ok()?;
    scan.word(",\"type\":\"")?;
    let kind = match before.map(|before| before.event.name()) {
        Some(known) if scan.same(known) => known,
        _ => scan.quoted()?,
    };
    scan.word(",\"v\":")?;
    let v = u16::try_from(scan.number()?).ok()?;
    let runtime = match scan.word(",\"runtime\":\"") {
        None => None,
        Some(()) => Some(scan.shared(
            before.and_then(|before| before.runtime.as_ref()),
            RuntimeId::as_str,
            |text| RuntimeId::parse(text).ok(),
        )?),
    };
    let worker = match scan.word(",\"worker\":\"") {
        None => None,
        Some(()) => Some(scan.shared(
            before.and_then(|before| before.worker.as_ref()),
            WorkerId::as_str,
            |text| WorkerId::parse(text).ok(),
        )?),
    };
    let version = match scan.word(",\"version\":") {
        Some(()) => Some(Version(scan.number()?)),
        None => None,
    };
    scan.word(",\"actor\":\"")?;
    let actor = scan.shared(before.map(|before| &before.actor), Actor::as_str, |text| {
        Actor::parse(text).ok()
    })?;
    let command = scan.command()?;
    let trace = match scan.optional(",\"trace\":\"")? {
        Some(text) => Some(TraceParent::parse(text).ok()?),
        None => None,
    };
    scan.word(",\"data\":")?;
    let (event, len) = Event::decode_first(kind, v, scan.rest)?;
    scan.rest = scan.rest.get(len..)?;
    let content = scan.content()?;
    if scan.rest != "}" {
        return None;
    }
    let header = Header { seq, id, time, runtime, worker, version, actor, command, trace, event };
    Some((header, content))
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    /// Into its callers, so that words are compared as numbers and not by a call.
    #[inline(always)]
    fn word(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// A number as JSON writes it, without sign, fraction and exponent.
    fn number(&mut self) -> Option<u64> {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.rest.split_at(digits);
        if number.len() > 1 && number.starts_with('0') {
            return None;
        }
        self.rest = rest;
        number.parse().ok()
    }

    /// A text without escapes, behind `before`, which ends with its opening quotation mark.
    #[inline(always)]
    fn text(&mut self, before: &str) -> Option<&'a str> {
        self.word(before)?;
        self.quoted()
    }

    /// The same, of a text that almost always has that many bytes and is checked by whoever asks for
    /// it, so that it need not be searched for its end.
    #[inline(always)]
    fn text_of<const BYTES: usize>(&mut self, before: &str) -> Option<&'a str> {
        self.word(before)?;
        match self.rest.split_at_checked(BYTES) {
            Some((text, behind)) if behind.starts_with('"') && !text.contains('"') => {
                self.rest = &behind[1..];
                Some(text)
            }
            _ => self.quoted(),
        }
    }

    /// Whether this text, which needs no escapes, is what comes up to the next quotation mark. It is
    /// then taken.
    fn same(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text).and_then(|rest| rest.strip_prefix('"'));
        rest.is_some_and(|rest| {
            self.rest = rest;
            true
        })
    }

    /// The same value as before, if the text is the same; else a new one, if it is valid.
    fn shared<T: Clone>(
        &mut self,
        before: Option<&T>,
        as_str: fn(&T) -> &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match before {
            Some(before) if self.same(as_str(before)) => Some(before.clone()),
            _ => parse(self.quoted()?),
        }
    }

    /// A text without escapes, up to its closing quotation mark.
    fn quoted(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
        if bytes[end] != b'"' {
            return None;
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(text)
    }

    #[expect(clippy::option_option, reason = "absent and malformed are different things")]
    fn optional(&mut self, before: &str) -> Option<Option<&'a str>> {
        if self.rest.starts_with(before) { self.text(before).map(Some) } else { Some(None) }
    }

    #[expect(clippy::option_option, reason = "absent and malformed are different things")]
    fn command(&mut self) -> Option<Option<CommandRef>> {
        let Some(key) = self.optional(",\"command\":{\"key\":\"")? else { return Some(None) };
        let key = IdempotencyKey::parse(key).ok()?;
        let fingerprint = crate::Digest::parse(self.text(",\"fingerprint\":\"")?).ok()?;
        self.word("}")?;
        Some(Some(CommandRef { key, fingerprint }))
    }

    #[expect(clippy::option_option, reason = "absent and malformed are different things")]
    fn content(&mut self) -> Option<Option<ContentMeta>> {
        if self.word(",\"content\":{\"len\":").is_none() {
            return Some(None);
        }
        let len = self.number()?;
        let media_type = match self.text(",\"media_type\":\"")? {
            "text/plain" => MediaType::Text,
            "application/json" => MediaType::Json,
            _ => return None,
        };
        self.word("}")?;
        Some(Some(ContentMeta { len, media_type }))
    }
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::{
        Actor, Digest, Event, IdempotencyKey, InputKind, MediaType, Record, Revision, RuntimeId,
        Sequence, ServiceStarted, Timestamp, TraceParent, Version, WorkerId, WorkerInputAccepted,
        record::{CommandRef, Content, Header, read_any},
    };
    use uuid::Uuid;

    fn small() -> Header {
        Header {
            seq: Sequence(1),
            id: Uuid::from_u128(7),
            time: Timestamp(1_795_000_000_000_001),
            runtime: None,
            worker: None,
            version: None,
            actor: Actor::service(),
            command: None,
            trace: None,
            event: Event::from(ServiceStarted { acta: "0.1 \"x\" \\ ä\n".into() }),
        }
    }

    fn large() -> Header {
        let trace = format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16));
        let key = IdempotencyKey::parse("a-key").unwrap();
        let accepted =
            WorkerInputAccepted { kind: InputKind::User, item: 3, revision: Revision(4) };
        Header {
            seq: Sequence(u64::MAX),
            runtime: Some(RuntimeId::parse("r").unwrap()),
            worker: Some(WorkerId::parse("w:1").unwrap()),
            version: Some(Version(0)),
            command: Some(CommandRef { key, fingerprint: Digest([9; 32]) }),
            trace: Some(TraceParent::parse(&trace).unwrap()),
            event: Event::from(accepted),
            ..small()
        }
    }

    #[test]
    fn what_is_written_is_understood_in_one_pass() {
        let content = Content::new([1; 16], MediaType::Json, "{}".into()).to_stored();
        for header in [small(), large()] {
            for content in [None, Some(content.clone())] {
                let record = Record::new(header.clone(), content.clone()).unwrap();
                for before in [None, Some(&header), Some(&small()), Some(&large())] {
                    let (read, meta) = read(&record.json, before).unwrap();
                    assert_eq!(read, header);
                    let meta = meta.map(|meta| (meta.len, meta.media_type));
                    assert_eq!(meta, content.as_ref().map(|c| (c.len, c.media_type)));
                }
            }
        }
    }

    /// Each row is something that stands in the header and what stands there instead. Whatever
    /// is still understood in one pass means the same to the reader of any JSON.
    #[test]
    fn whatever_else_there_is_is_left_to_the_reader_of_any_json() {
        let json = Record::new(large(), None).unwrap().json;
        let json = std::str::from_utf8(&json).unwrap();
        let check = |from: &str, to: &str, expected: bool| {
            let altered = json.replacen(from, to, 1);
            assert_ne!(altered, json, "{from}");
            let quick = read(altered.as_bytes(), None);
            assert_eq!(quick.is_some(), expected, "{altered}");
            if let Some((header, _)) = quick {
                assert_eq!(header, read_any(altered.as_bytes()).unwrap().0);
            }
        };
        check("{\"seq\"", "{ \"seq\"", false);
        check("18446744073709551615", "18446744073709551616", false);
        check("18446744073709551615", "007", false);
        check("18446744073709551615", "-7", false);
        check("18446744073709551615", "1.5", false);
        check("18446744073709551615", "", false);
        check("w:1", "w\\u003a1", false);
        check("w:1", "", false);
        check("w:1", "w 1", false);
        check("\"v\":1", "\"v\":2", false);
        check("\"v\":1", "\"v\":65537", false);
        check("worker_input_accepted", "worker_input_unknown", false);
        check("\"item\":3", "\"item\": 3", true);
        check("\"item\":3", "\"item\":3,\"more\":[{\"}\":\"]\"}]", true);
        check("\"item\":3", "\"item\":\"3\"", false);
        check("a-key", "a key", false);
        check("0909", "09G9", false);
        check(".000001Z", "Z", true);
        check(".000001Z", "", false);
        check("}}", "},\"data\":{}}", false);
        check("}}", "}} ", false);
        check("}}", "}", false);
        for end in 0..json.len() {
            assert!(read(&json.as_bytes()[..end], None).is_none());
        }
        assert!(read(b"{\"seq\":1,\"id\":\"\xff\"", None).is_none());
    }
}
