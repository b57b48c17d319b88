//! Answers out of a template, to try a connection with.

use crate::{
    connect::{
        backend::{Backend, BackendError, ProgressSender, Request, Response},
        options::BackendOptions,
    },
    trust::Trust,
};
use futures_util::future::{BoxFuture, FutureExt, ready};
use std::sync::Arc;

const REPLY_DEFAULT: &str = "echo: %s";

struct Mock {
    reply: String,
}

/// Options: `reply`, in which `%s` stands for the text of the message.
pub(super) fn build(options: &BackendOptions, _: &Trust) -> Result<Arc<dyn Backend>, String> {
    options.only(&["reply"])?;
    let reply = options.get("reply").unwrap_or(REPLY_DEFAULT).to_owned();
    Ok(Arc::new(Mock { reply }))
}

impl Backend for Mock {
    fn handle<'a>(
        &'a self,
        request: &'a Request,
        _: ProgressSender,
    ) -> BoxFuture<'a, Result<Response, BackendError>> {
        ready(Ok(Response::text(self.reply.replace("%s", &request.text())))).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}
