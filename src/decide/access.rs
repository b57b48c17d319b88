//! Tokens and consumer cursors.

use super::{Decision, Draft, Facts};
use crate::error::{Code, Rejection};
use acta_events::{
    CursorCommitted, CursorName, Role, Sequence, TokenId, TokenIssued, TokenRevoked,
};

pub(super) fn commit_cursor(
    facts: Facts<'_>,
    name: &CursorName,
    cursor: &str,
    position: Sequence,
    steps: bool,
) -> Decision {
    let known = facts.globals.cursors.get(facts.actor, name);
    let same = known.is_some_and(|known| known.cursor == cursor);
    // A commit that only steps over records about watching would make one more of them to
    // step over: a follower of the whole log would never come to rest.
    let idle = known.is_some_and(|known| known.position <= position) && !steps;
    if same || idle {
        return Decision::Unchanged;
    }
    let committed = CursorCommitted { name: name.clone(), cursor: cursor.into(), position };
    Draft::of_service(committed).into()
}

pub(super) fn issue_token(facts: Facts<'_>, issued: &TokenIssued) -> Result<Decision, Rejection> {
    if issued.role == Role::Worker {
        let worker = issued.worker.as_ref().ok_or_else(|| {
            Rejection::invalid(
                "a token of role worker needs `worker`: {\"runtime_id\", \"worker_id\"}",
            )
        })?;
        if facts.globals.workers.get(&worker.runtime_id, &worker.worker_id).is_none() {
            let message = format!(
                "there is no worker `{}` in runtime `{}`; `acta ls workers` lists them",
                worker.worker_id, worker.runtime_id
            );
            return Err(Rejection::new(Code::UnknownWorker, message));
        }
    }
    Ok(Draft::of_service(issued.clone()).into())
}

pub(super) fn revoke_token(facts: Facts<'_>, token: &TokenId) -> Result<Decision, Rejection> {
    match facts.globals.tokens.get(token) {
        None => {
            let message = format!("there is no token `{token}`; `acta token ls` lists them");
            Err(Rejection::new(Code::UnknownToken, message))
        }
        Some(known) if known.revoked_at.is_some() => Ok(Decision::Unchanged),
        Some(_) => Ok(Draft::of_service(TokenRevoked { token: token.clone() }).into()),
    }
}
