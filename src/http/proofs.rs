//! Proofs, and the receipts that are made of them.

use super::{App, access::Caller, error::Reply, query};
use crate::{
    audit::{NotaryError, Receipt},
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::Sequence;
use axum::{Json, extract::State, http::Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

impl From<NotaryError> for Rejection {
    fn from(error: NotaryError) -> Self {
        match error {
            NotaryError::Tree(error) => error.into(),
            error => {
                tracing::error!(%error, "a checkpoint could not be signed");
                let message = "a checkpoint could not be signed; the log of the service tells why";
                Self::new(Code::StoreIo, message)
            }
        }
    }
}

fn beyond(what: &str, asked: u64, head: u64) -> Rejection {
    let message = format!("{what} {asked} is not in the log, which has 1 to {head}");
    Rejection::new(Code::NotFound, message)
}

#[derive(Deserialize)]
struct InclusionQuery {
    seq: Option<String>,
}

/// That a record is in the log, up to a checkpoint that covers it.
pub(super) async fn inclusion(
    caller: Caller,
    State(app): State<App>,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadAll)?;
    let InclusionQuery { seq } = query::query(&uri)?;
    let seq = query::number("seq", "the sequence of a record", seq.as_deref())?;
    let head = app.log.head().0;
    if seq == 0 || seq > head {
        return Err(beyond("record", seq, head));
    }
    let logged = app.log.record(Sequence(seq)).await?;
    let record = match logged {
        Some(logged) => Some(Arc::clone(&logged.record)),
        // The tree keeps its leaf; what it is the leaf of is not there any more.
        None if app.log.has_expired(Sequence(seq)) => None,
        None => return Err(beyond("record", seq, head)),
    };
    let notary = Arc::clone(&app.notary);
    let prove = move || {
        let proven = notary.covering(seq).and_then(|checkpoint| {
            let proof = notary.tree().inclusion(seq - 1, checkpoint.size())?;
            Ok((checkpoint, proof))
        });
        Ok(proven)
    };
    let (checkpoint, proof) = crate::log::blocking(prove).await??;
    let is_leaf = record.as_ref().is_none_or(|it| proof.leaf == crate::audit::leaf_of(it.digest));
    if !proof.holds(checkpoint.root()) || !is_leaf {
        let message = format!(
            "the tree does not prove record {seq}: it is damaged. Stop the service and remove the \
             directory `tree`: it is made anew from the log"
        );
        return Err(Rejection::new(Code::StoreCorrupt, message));
    }
    let hashes: Vec<_> = proof.proof.iter().map(ToString::to_string).collect();
    let mut answer = json!({
        "sequence": seq,
        "index": proof.index,
        "size": proof.size,
        "leaf_hash": proof.leaf.to_string(),
        "root": checkpoint.root().to_string(),
        "proof": hashes,
        "checkpoint": checkpoint.text(),
    });
    match record {
        Some(record) => {
            answer["record_digest"] = json!(record.digest);
            answer["receipt"] = Receipt::new(&record, &proof, &checkpoint).to_string().into();
        }
        None => answer["expired"] = true.into(),
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
struct ConsistencyQuery {
    from: Option<String>,
    to: Option<String>,
}

/// That the log of one size begins with that of another; the larger is that of the newest
/// checkpoint unless it is said.
pub(super) async fn consistency(
    caller: Caller,
    State(app): State<App>,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadAll)?;
    let ConsistencyQuery { from, to } = query::query(&uri)?;
    let size = |name, text: Option<&str>| query::number(name, "a number of records", text);
    let from = size("from", from.as_deref())?;
    let to = to.map(|to| size("to", Some(&to))).transpose()?;
    let head = app.log.head().0;
    if let Some(asked) = [Some(from), to].into_iter().flatten().find(|size| *size > head) {
        return Err(beyond("size", asked, head));
    }
    let notary = Arc::clone(&app.notary);
    let prove = move || {
        let proven = notary.covering(to.unwrap_or(from)).and_then(|checkpoint| {
            let to = to.unwrap_or(checkpoint.size());
            Ok((checkpoint, notary.tree().consistency(from.min(to), to)?))
        });
        Ok(proven)
    };
    if to.is_some_and(|to| to < from) {
        let message = format!(
            "`from` is {from} and `to` is {}; `from` is the smaller one",
            to.unwrap_or_default()
        );
        return Err(Rejection::new(Code::InvalidQuery, message));
    }
    let (checkpoint, proof) = crate::log::blocking(prove).await??;
    if !proof.holds() {
        let message = "the tree does not prove it: it is damaged. Stop the service and remove the \
                       directory `tree`: it is made anew from the log";
        return Err(Rejection::new(Code::StoreCorrupt, message));
    }
    let hashes: Vec<_> = proof.proof.iter().map(ToString::to_string).collect();
    Ok(Json(json!({
        "from": proof.from,
        "to": proof.to,
        "from_root": proof.from_root.to_string(),
        "to_root": proof.to_root.to_string(),
        "proof": hashes,
        "checkpoint": checkpoint.text(),
    })))
}
