//! Any bytes as a create request: refused with a code, or within the bounds of what is stored.

use acta::{create_request::CreateRequest, error::Code};

pub(crate) fn run(input: &[u8]) {
    match CreateRequest::parse(input) {
        Err(rejection) => {
            assert!(Code::ALL.contains(&rejection.code));
            assert!((400..500).contains(&rejection.code.status()), "{rejection}");
            assert!(rejection.message.len() < 4096, "{}", rejection.message.len());
        }
        Ok(checked) => {
            let data = serde_json::to_vec(&checked.created).expect("events serialise");
            assert!(data.len() <= acta_events::record::HEADER_BYTES_MAX);
            let again = serde_json::to_vec(&checked.texts).expect("texts serialise");
            let texts = serde_json::from_slice(&again).expect("texts are read again");
            assert_eq!(checked.texts, texts);
        }
    }
}
