//! Who is asking, and what they may do. Pure but for [`operator_token`], which is a file.
//!
//! A token is looked at only by its SHA-256. Configured tokens are the operator's; issued ones
//! are known to the log, and are looked up through a closure. Nothing here shows a token when
//! it is printed.

mod host;
mod operator_token;
mod permission;
#[cfg(test)]
mod tests;

pub use host::{HostPolicy, HostPolicyError};
pub use operator_token::{
    OperatorToken, OperatorTokenError, check_operator_token, operator_token, reset_operator_token,
};
pub use permission::{Permission, RoleExt};

use crate::error::{Code, Rejection};
use acta_events::{Actor, Digest, HostId, Role, TokenId, WorkerRef, sha256};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// Random bytes of a token that is made here.
const TOKEN_BYTES: usize = 32;

/// Characters of a token that is made here.
pub const TOKEN_CHARS: usize = 43;

/// SHA-256 of a token: all that is kept of it.
pub fn token_digest(token: &str) -> Digest {
    sha256(&[token.as_bytes()])
}

/// A fresh token: 32 random bytes as 43 characters of base64url.
pub fn new_token() -> String {
    let mut bytes = [0; TOKEN_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Who is asking, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whom records name.
    pub actor: Actor,
    /// What they may do.
    pub role: Role,
    /// Of role `worker`: which one.
    pub worker: Option<WorkerRef>,
    /// Of role `host`: which one.
    pub host: Option<HostId>,
    /// The issued token; streams end when it is revoked.
    pub token: Option<TokenId>,
}

impl Access {
    fn operator(actor: Actor) -> Self {
        Self { actor, role: Role::Operator, worker: None, host: None, token: None }
    }

    /// Refuses what the role does not include: 403.
    pub fn require(&self, permission: Permission) -> Result<(), Rejection> {
        if self.role.may(permission) {
            return Ok(());
        }
        let message = format!(
            "a token of role `{}` may not {permission}; that takes one of: {}",
            self.role.name(),
            permission.roles().map(RoleExt::name).collect::<Vec<_>>().join(", ")
        );
        Err(Rejection::new(Code::Forbidden, message))
    }

    /// Refuses to act as a worker that is not the token's own: 401, so that a stranger's token
    /// is told no more than a wrong one. Roles that act as no worker at all: 403.
    pub fn require_worker(&self, worker: &WorkerRef) -> Result<(), Rejection> {
        self.require(Permission::WorkerSelf)?;
        if self.role == Role::Worker && self.worker.as_ref() != Some(worker) {
            return Err(unauthorized("the token is not that of this worker"));
        }
        Ok(())
    }

    /// Refuses to act as a host that is not the token's own: 403. A host's token that names no
    /// host is good for none.
    pub fn require_host(&self, host: &HostId) -> Result<(), Rejection> {
        self.require(Permission::HostBeat)?;
        if self.role == Role::Host && self.host.as_ref() != Some(host) {
            let message = format!("the token is not that of host `{host}`");
            return Err(Rejection::new(Code::Forbidden, message));
        }
        Ok(())
    }
}

/// What the log knows of an issued token that is valid now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Names the token without giving it away.
    pub token: TokenId,
    /// What its holder may do.
    pub role: Role,
    /// Of role `worker`: which one.
    pub worker: Option<WorkerRef>,
    /// Of role `host`: which one.
    pub host: Option<HostId>,
}

/// A configured token cannot be used. The message does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is empty.
    #[error("a token is empty; leave it out, or give one of at least one character")]
    Empty,
    /// No `Authorization` header could carry it.
    #[error(
        "a token begins or ends with white space, or has control characters in it; no client could send it"
    )]
    Unsendable,
}

/// Tells who holds a token.
#[derive(Clone)]
pub struct Authenticator {
    operators: Vec<Digest>,
    is_open: bool,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("operators", &self.operators.len())
            .field("is_open", &self.is_open)
            .finish()
    }
}

impl Authenticator {
    /// Demands a token of every request. `operators` are the configured ones.
    pub fn new<T: AsRef<str>>(operators: impl IntoIterator<Item = T>) -> Result<Self, TokenError> {
        let check = |token: T| {
            let token = token.as_ref();
            if token.is_empty() {
                return Err(TokenError::Empty);
            }
            if token.trim() != token || token.chars().any(char::is_control) {
                return Err(TokenError::Unsendable);
            }
            Ok(token_digest(token))
        };
        let operators = operators.into_iter().map(check).collect::<Result<_, _>>()?;
        Ok(Self { operators, is_open: false })
    }

    /// Whoever shows no token, or one that is not known, is an anonymous operator. Known tokens
    /// still say who is asking. Only for a service that nobody else can reach.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    /// Whether a request needs a token.
    pub fn demands_token(&self) -> bool {
        !self.is_open
    }

    /// Who sent this `Authorization` header; else 401. `issued` looks up a valid token by its
    /// digest.
    pub fn authenticate(
        &self,
        authorization: Option<&[u8]>,
        issued: impl FnOnce(&Digest) -> Option<Issued>,
    ) -> Result<Access, Rejection> {
        let refuse = |message| match self.is_open {
            true => Ok(Access::operator(Actor::anonymous())),
            false => Err(unauthorized(message)),
        };
        let Some(authorization) = authorization else {
            return refuse("this needs a token: `Authorization: Bearer <token>`");
        };
        let Some(token) = bearer(authorization) else {
            return refuse("the Authorization header is not of the form `Bearer <token>`");
        };
        let digest = sha256(&[token]);
        if self.is_operator(&digest) {
            return Ok(Access::operator(Actor::operator()));
        }
        match issued(&digest) {
            Some(Issued { token, role, worker, host }) => {
                let actor = Actor::token(&token);
                Ok(Access { actor, role, worker, host, token: Some(token) })
            }
            None => refuse("the token is not known here, or was revoked"),
        }
    }

    /// Compares with every configured token, in the same time whichever it is.
    fn is_operator(&self, digest: &Digest) -> bool {
        let matches = |known: &Digest| known.0.ct_eq(&digest.0);
        self.operators.iter().fold(Choice::from(0), |any, known| any | matches(known)).into()
    }
}

fn unauthorized(message: &str) -> Rejection {
    Rejection::new(Code::Unauthorized, message)
}

/// The token of an `Authorization` header: the scheme in any case, one space, the rest.
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = authorization.split_at_checked(SCHEME.len())?;
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}
