//! Who may do what, over HTTP.

use crate::support::Service;

#[tokio::test]
async fn the_operator_finds_its_token_in_a_file_and_can_restart_the_service() {
    let mut service = Service::start().await;
    let runtime = service.get("/v1/runtime").await.ok();
    assert_eq!(runtime["runtime"]["runtime_id"], "embedded-worker-runtime");
    let token = service.token();
    let worker = service.spawn("echo").await;
    service.kill9().await;
    service.restart().await;
    assert_eq!(service.token(), token);
    assert_eq!(service.worker(&worker).await["worker_id"], worker);
    service.stop().await;
}
